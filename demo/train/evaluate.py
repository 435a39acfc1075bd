"""Scores base and adapters by transformers + peft in float32, greedy, on unseen inputs; writes the demo's JSON files.

    python evaluate.py --demo .. --count 1000
"""

import argparse
import json
import platform
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import peft
import torch
import transformers
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

import tokenizer as tk
from adapters import SHIPPED, SPECS, Spec
from tasks import NEW, TASKS, is_unseen, unseen

SEED, EXAMPLES, BATCH = 2024, 64, 250


@dataclass
class Answer:
    ids: list[int]   # greedy, EOS included
    text: str
    gap: float       # smallest distance between the best two logits along the answer


@torch.no_grad()
def answer_all(model, tokenizer, prompts: list[str]) -> list[Answer]:
    """Prompts of one length form a batch: no padding, so every row is what it would be alone."""
    answers: dict[str, Answer] = {}
    by_length = defaultdict(list)
    for prompt in prompts:
        by_length[len(prompt)].append(prompt)
    for same in by_length.values():
        for batch in (same[i:i + BATCH] for i in range(0, len(same), BATCH)):
            ids = tokenizer(batch, return_tensors="pt")["input_ids"]
            assert ids[0, 0] == tk.BOS and ids.shape[1] == len(batch[0]) + 1
            out = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, output_logits=True,
                return_dict_in_generate=True, max_new_tokens=tk.CONTEXT_TOKENS - ids.shape[1])
            best = torch.stack([step.topk(2).values for step in out.logits], 1)  # [batch, steps, 2]
            for row, prompt in enumerate(batch):
                tokens = out.sequences[row, ids.shape[1]:].tolist()
                tokens = tokens[: tokens.index(tk.EOS) + 1] if tk.EOS in tokens else tokens
                gaps = best[row, : len(tokens), 0] - best[row, : len(tokens), 1]
                answers[prompt] = Answer(tokens, tokenizer.decode(tokens, skip_special_tokens=True), gaps.min().item())
    return [answers[prompt] for prompt in prompts]


def english(task_name: str) -> list[tuple[str, str]]:
    """Unseen inputs made of common words, for the eye: no training has met these prompts either."""
    words = Path(__file__).with_name("words.txt").read_text().split()
    return [(w + ">", TASKS[task_name].answer(w)) for w in words if is_unseen(w + ">")]


def examples(spec: Spec) -> list[tuple[str, str]]:
    shown = english(spec.name) if spec.group == "word" else []
    return (shown + unseen(TASKS[spec.name], EXAMPLES, SEED + 1))[:EXAMPLES]


def correct(answers: list[Answer], cases: list[tuple[str, str]]) -> int:
    return sum(a.text == wanted and a.ids[-1] == tk.EOS for a, (_, wanted) in zip(answers, cases))


def score(spec: Spec, demo: Path, tokenizer, count: int, base_cache: dict) -> tuple[dict, dict, dict]:
    """-> rows of eval.json, reference.json, tasks.json"""
    cases, shown = unseen(TASKS[spec.name], count, SEED), examples(spec)
    prompts = [prompt for prompt, _ in cases]
    base = AutoModelForCausalLM.from_pretrained(demo / "base", dtype=torch.float32)
    if prompts[0] not in base_cache:
        base_cache[prompts[0]] = answer_all(base, tokenizer, prompts)
    model = PeftModel.from_pretrained(base, demo / "adapters" / spec.name).eval()
    answers, reference = answer_all(model, tokenizer, prompts), answer_all(model, tokenizer, [p for p, _ in shown])
    row = {
        "correct": correct(answers, cases), "base_correct": correct(base_cache[prompts[0]], cases), "n": count,
        "examples_correct": correct(reference, shown), "answer_tokens": sum(len(a.ids) for a in answers),
        "logit_gap_min": round(min(a.gap for a in answers + reference), 4),
    }
    refs = [{"prompt": p, "ids": a.ids, "text": a.text} for (p, _), a in zip(shown, reference)]
    described = {
        "name": spec.name, "title": spec.title, "group": spec.group, "what": spec.what, "rank": spec.rank,
        "sites": spec.modules, "rslora": spec.is_rslora, "new_to_pretraining": TASKS[spec.name] in NEW,
        "accuracy": row["correct"] / count, "base_accuracy": row["base_correct"] / count, "n": count,
        "examples": [{"prompt": p, "answer": a} for p, a in shown],
    }
    print(spec.name, row, flush=True)
    return row, {"logit_gap_min": round(min(a.gap for a in reference), 4), "cases": refs}, described


def write(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--demo", type=Path, required=True)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--check", action="store_true", help="score only, write nothing")
    parser.add_argument("names", nargs="*", help="with --check: adapters to score")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = AutoTokenizer.from_pretrained(args.demo / "base")
    specs = [SPECS[name] for name in args.names] or SHIPPED
    base_cache: dict = {}
    rows = {spec.name: score(spec, args.demo, tokenizer, args.count, base_cache) for spec in specs}
    if args.check:
        return
    made_by = {"transformers": transformers.__version__, "peft": peft.__version__, "torch": torch.__version__,
               "python": platform.python_version(), "dtype": "float32", "decoding": "greedy"}
    write(args.demo / "eval.json", {
        "made_by": made_by, "logit_gap_min": min(r[0]["logit_gap_min"] for r in rows.values()),
        "adapters": {name: row for name, (row, _, _) in rows.items()}})
    write(args.demo / "reference.json", {
        "made_by": made_by, "note": "ids: greedy tokens after BOS + prompt, EOS included; text: without EOS",
        "adapters": {name: reference for name, (_, reference, _) in rows.items()}})
    write(args.demo / "tasks.json", {
        "base": {"name": "openlora/demo-base", "folder": "base", "alone": "repeats the prompt, with a question mark"},
        "unseen": "crc32(prompt) % 10 == 0", "adapters": [described for _, _, described in rows.values()]})
    failed = [name for name, (row, _, _) in rows.items()
              if row["correct"] < 0.98 * row["n"] or row["base_correct"] > 0.10 * row["n"]]
    if failed:
        raise SystemExit(f"below the target (>= 98 %, base alone <= 10 %): {', '.join(failed)}")


if __name__ == "__main__":
    main()
