"""What transformers makes of logits before it draws: greedy answers with penalties and biases, and exact distributions.

Writes test/data/sampling/greedy.json, answers of checkpoints of test/data/parity (make_references.py), and
test/data/sampling/distributions.txt, which test/native/ops/sample_frequency_test.cc reads.
Made with Python 3.11, torch 2.15.0, transformers 5.23.0, on a CPU:
    python test/parity/make_sampling_references.py

Greedy answers are computed in float32 with eager attention. Prompts are drawn until the two best processed scores of
each step are over 1e-3 apart, so that rounding can't change the path, and until the answer differs from the one without
the setting. Distributions are computed in float64.
"""

import json
import pathlib

import torch
from transformers import (
    AutoModelForCausalLM, MinPLogitsWarper, RepetitionPenaltyLogitsProcessor, SequenceBiasLogitsProcessor,
    TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper,
)

DATA = pathlib.Path(__file__).resolve().parents[1] / "data"
STEPS = 64
GAP_MIN = 1e-3
BIAS = {17: -100.0, 40: 2.5, 41: 1.25, 200: -3.0, 258: 0.75}
SETTINGS = [
    ("llama-gqa", dict(repetition_penalty=1.3)),
    ("llama-gqa", dict(repetition_penalty=0.8)),
    ("llama-gqa", dict(sequence_bias=BIAS)),
    ("llama-gqa", dict(repetition_penalty=1.2, sequence_bias=BIAS)),
    ("qwen2", dict(repetition_penalty=1.5)),
    ("llama-tied-bf16", dict(repetition_penalty=1.1, sequence_bias=BIAS)),
]


def spelled(setting):
    """`sequence_bias` as generate wants it."""
    bias = setting.get("sequence_bias")
    return setting if bias is None else {**setting, "sequence_bias": [[[token], value] for token, value in bias.items()]}


@torch.no_grad()
def answer(model, prompt, setting):
    ids = torch.tensor([prompt])
    out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=STEPS, min_new_tokens=STEPS,
                         do_sample=False, eos_token_id=None, pad_token_id=0, return_dict_in_generate=True,
                         output_scores=True, output_logits=True, **spelled(setting))
    tokens = out.sequences[0, len(prompt):].tolist()
    best = torch.cat(out.scores).topk(2).values
    raw = torch.cat(out.logits).log_softmax(-1)
    return dict(greedy=tokens, gap=float((best[:, 0] - best[:, 1]).min()),
                logprobs=[float(raw[i, token]) for i, token in enumerate(tokens)])


def write_greedy():
    cases = []
    for i, (name, setting) in enumerate(SETTINGS):
        model = AutoModelForCausalLM.from_pretrained(DATA / "parity" / name, dtype=torch.float32,
                                                     attn_implementation="eager").eval()
        for attempt in range(200):
            generator = torch.Generator().manual_seed(500 * i + attempt)
            length = int(torch.randint(8, 60, (1,), generator=generator))
            prompt = [1] + torch.randint(3, 259, (length - 1,), generator=generator).tolist()
            found = answer(model, prompt, setting)
            if found["gap"] > GAP_MIN and found["greedy"] != answer(model, prompt, {})["greedy"]:
                break
        else:
            raise RuntimeError(f"{name} {setting}: no prompt has a gap over {GAP_MIN}")
        print(f"{name:16} {str(setting):90} attempts {attempt + 1:3} gap {found['gap']:.4f}")
        cases.append(dict(checkpoint=name, **setting, prompt=prompt, **found))
    text = ",\n".join(json.dumps(case) for case in cases)
    (DATA / "sampling" / "greedy.json").write_text(f"[\n{text}\n]\n")


VOCABULARY = 48
# Temperature, top k, top p, min p, repetition penalty, whether there is a bias; in the order in which transformers
# applies them: bias, penalty, temperature, k, p, min p.
DISTRIBUTIONS = [
    (1, 0, 1, 0, 1, 0), (0.5, 0, 1, 0, 1, 0), (2.5, 0, 1, 0, 1, 0),
    (1, 1, 1, 0, 1, 0), (1, 7, 1, 0, 1, 0), (1, 0, 0.3, 0, 1, 0), (1, 0, 0.9, 0, 1, 0), (1, 0, 1, 0.02, 1, 0), (1, 0, 1, 0.5, 1, 0),
    (1, 0, 1, 0, 1.3, 0), (1, 0, 1, 0, 0.6, 0), (1, 0, 1, 0, 1, 1), (1, 0, 1, 0, 1.3, 1),
    (0.7, 20, 0.8, 0, 1, 0), (1.4, 20, 0.95, 0.1, 1, 0), (0.8, 0, 0.7, 0.2, 1, 0), (1.5, 12, 1, 0.3, 1, 0),
    (0.8, 25, 0.9, 0.05, 1.25, 1), (1.6, 30, 0.97, 0.02, 0.75, 1),
]


def processed(logits, ids, bias, temperature, top_k, top_p, min_p, penalty, has_bias):
    scores = logits[None]
    if has_bias:
        scores = SequenceBiasLogitsProcessor([[[token], value] for token, value in bias.items()])(ids, scores)
    if penalty != 1:
        scores = RepetitionPenaltyLogitsProcessor(float(penalty))(ids, scores)
    if temperature != 1:
        scores = TemperatureLogitsWarper(float(temperature))(ids, scores)
    if top_k:
        scores = TopKLogitsWarper(top_k)(ids, scores)
    if top_p < 1:
        scores = TopPLogitsWarper(float(top_p))(ids, scores)
    if min_p:
        scores = MinPLogitsWarper(float(min_p))(ids, scores)
    return scores[0].softmax(-1)


def write_distributions():
    generator = torch.Generator().manual_seed(7)
    logits = (3 * torch.randn(VOCABULARY, generator=generator)).float().double()
    ids = torch.randint(0, VOCABULARY, (1, 20), generator=generator)
    bias = {3: -100.0, 5: 2.5, 11: -1.75, 30: 4.0, 31: 0.5}
    with open(DATA / "sampling" / "distributions.txt", "w") as out:
        def line(*values):
            print(*values, file=out)
        line(VOCABULARY, ids.numel(), len(bias), len(DISTRIBUTIONS))
        line(*(f"{value:.9g}" for value in logits.tolist()))
        line(*ids[0].tolist())
        for token, value in bias.items():
            line(token, value)
        for setting in DISTRIBUTIONS:
            line(*setting)
            line(*(f"{p:.10g}" for p in processed(logits, ids, bias, *setting).tolist()))


if __name__ == "__main__":
    torch.set_num_threads(2)
    (DATA / "sampling").mkdir(exist_ok=True)
    write_distributions()
    write_greedy()
