"""Pre-trains the base on 25 tagged tasks and an echo, then writes demo/base. Restarts from its last checkpoint.

    python train_base.py --work /tmp/demo --out ../base
"""

import argparse
import json
import os
import random
import time
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch.nn import functional as F

import model as m
import tokenizer as tk
from adapters import SHIPPED
from tasks import ECHO, PRETRAINED, WORD_LETTERS_MAX, sample

CHUNK_ROWS = 32  # stays within the cache
MUON_LR, ADAM_LR, WARMUP_STEPS = 0.02, 3e-3, 100
CURRICULUM_PART, FLAT_PART, LR_END = 0.12, 0.55, 0.02
SPECS = [(task, tk.TAG_FIRST + i) for i, task in enumerate(PRETRAINED)] + [(ECHO, tk.BOS)]
EVOKED = {spec.name for spec in SHIPPED}


def task_weights(right: list[float]) -> list[float]:
    """The curriculum: what is not yet right is drawn more often, above all what an adapter shall evoke."""
    return [(0.15 + 1 - r) * (1.0 if task.name in EVOKED else 0.4) for (task, _), r in zip(SPECS, right)]


def draw_batch(rng: random.Random, right: list[float], letters_max: int, count: int):
    """[(ids, prompt length, task index)], sorted by length."""
    rows = []
    for index in rng.choices(range(len(SPECS)), task_weights(right), k=count):
        task, first = SPECS[index]
        prompt, answer = sample(task, rng, letters_max)
        rows.append(([first, *tk.encode(prompt), *tk.encode(answer), tk.EOS], 1 + len(prompt), index))
    return sorted(rows, key=lambda row: len(row[0]))


def tensors(rows):
    """ids [n, length] padded to a multiple of 16 (few shapes for the compiler), and where answers are predicted."""
    length = -(-max(len(ids) for ids, _, _ in rows) // 16) * 16
    padded = torch.tensor([ids + [tk.PAD] * (length - len(ids)) for ids, _, _ in rows])
    row, column = [], []
    for i, (ids, prompt, _) in enumerate(rows):
        row += [i] * (len(ids) - prompt)
        column += range(prompt - 1, len(ids) - 1)
    row, column = torch.tensor(row), torch.tensor(column)
    return padded, row, column, padded[row, column + 1]


def lr_scale(step: int, part: float) -> float:
    decay = 1.0 if part < FLAT_PART else 1 - (1 - LR_END) * (part - FLAT_PART) / (1 - FLAT_PART)
    return min(1.0, (step + 1) / WARMUP_STEPS) * max(LR_END, decay)


def train_step(net, forward, rows, right):
    """Accumulates gradients over the chunks; moves the running exact match of each task. -> loss, tokens"""
    parts = [rows[i:i + CHUNK_ROWS] for i in range(0, len(rows), CHUNK_ROWS)]
    chunks = [tensors(part) for part in parts]
    answers = sum(len(chunk[3]) for chunk in chunks)
    total = 0.0
    for part, (ids, row, column, wanted) in zip(parts, chunks):
        logits = net.lm_head(forward(ids)[row, column])
        loss = F.cross_entropy(logits, wanted, reduction="sum") / answers
        loss.backward()
        total += loss.item()
        wrong = torch.zeros(len(ids)).index_add_(0, row, (logits.argmax(-1) != wanted).float())
        for (_, _, task), misses in zip(part, wrong.tolist()):
            right[task] += 0.03 * ((misses == 0) - right[task])
    return total, sum(chunk[0].numel() for chunk in chunks)


def average(net, numbers: list[float]) -> list[float]:
    """Gradients and `numbers` become their means over the workers: one message a step, alike to the bit on each."""
    grads = [p.grad for p in net.parameters()]
    flat = torch.cat([g.reshape(-1) for g in grads] + [torch.tensor(numbers)])
    if dist.is_initialized():
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
    for g, mean in zip(grads, flat.split([g.numel() for g in grads] + [len(numbers)])):
        g.copy_(mean.view_as(g))
    return flat[-len(numbers):].tolist()


def export(net, folder: Path) -> None:
    """transformers' files, bf16, without the tags' rows of embedding and head: only an adapter can evoke a skill."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: p.detach().clone() for name, p in net.state_dict().items()}
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        state[name] = state[name][: tk.VOCAB].clone()
    save_file({k: v.to(torch.bfloat16).contiguous() for k, v in state.items()}, folder / "model.safetensors",
              metadata={"format": "pt"})
    ids = {"bos_token_id": tk.BOS, "eos_token_id": tk.EOS, "pad_token_id": tk.PAD}
    config = {
        "_name_or_path": m.NAME, "architectures": ["LlamaForCausalLM"], "model_type": "llama",
        "vocab_size": tk.VOCAB, "hidden_size": m.HIDDEN,
        "intermediate_size": m.INNER, "num_hidden_layers": m.LAYERS, "num_attention_heads": m.HEADS,
        "num_key_value_heads": m.KV_HEADS, "head_dim": m.HEAD_DIM, "hidden_act": "silu", "rms_norm_eps": m.EPS,
        "max_position_embeddings": tk.CONTEXT_TOKENS, "rope_theta": m.ROPE_THETA,
        "rope_parameters": {"rope_type": "default", "rope_theta": m.ROPE_THETA}, "attention_bias": False,
        "mlp_bias": False, "tie_word_embeddings": False, "torch_dtype": "bfloat16", **ids,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "generation_config.json").write_text(json.dumps({**ids, "do_sample": False}, indent=2) + "\n")
    tk.write_tokenizer(folder)
    (folder / "model.safetensors").chmod(0o644)  # safetensors writes 0600


def save_checkpoint(path: Path, **state) -> None:
    torch.save(state, path.with_suffix(".new"))
    os.replace(path.with_suffix(".new"), path)


def work(rank: int, args) -> None:
    """One worker: a process with one thread and its share of the batch. On a busy machine two threads would wait for
    each other at every operator; workers wait once a step."""
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    if args.workers > 1:
        dist.init_process_group("gloo", init_method=f"file://{args.work}/rendezvous", rank=rank,
                                world_size=args.workers)
    net = m.Llama(tk.TAG_FIRST + len(PRETRAINED), tk.CONTEXT_TOKENS)
    hidden = [p for name, p in net.named_parameters() if p.ndim == 2 and "layers" in name]
    other = [p for name, p in net.named_parameters() if p.ndim == 1 or "layers" not in name]
    muon, adam = m.Muon(hidden, MUON_LR), torch.optim.AdamW(other, ADAM_LR, betas=(0.9, 0.95), weight_decay=0.0)
    forward = net if args.eager else torch.compile(net, dynamic=True)
    right, step, seconds, tokens, checkpoint = [0.0] * len(SPECS), 0, 0.0, 0, args.work / "base.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=False)
        for name, part in (("net", net), ("muon", muon), ("adam", adam)):
            part.load_state_dict(saved[name])
        right, step, seconds, tokens = saved["right"], saved["step"], saved["seconds"], saved["tokens"]
    rng, last_save = random.Random(f"{args.seed} {rank} {step}"), time.monotonic()

    while (part := max(step / args.steps, seconds / 60 / args.minutes)) < 1:
        began = time.monotonic()
        letters_max = round(3 + (WORD_LETTERS_MAX - 3) * min(1.0, part / CURRICULUM_PART))
        rows = draw_batch(rng, right, letters_max, args.batch // args.workers)
        loss, step_tokens = train_step(net, forward, rows, right)
        seconds += time.monotonic() - began
        loss, step_tokens, seconds, *right = average(net, [loss, float(step_tokens), seconds, *right])
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        muon.param_groups[0]["lr"] = MUON_LR * lr_scale(step, part)
        adam.param_groups[0]["lr"] = ADAM_LR * lr_scale(step, part)
        muon.step(), adam.step(), net.zero_grad()
        step, tokens, now = step + 1, tokens + round(step_tokens * args.workers), time.monotonic()
        if rank == 0 and step % 25 == 0:
            scores = " ".join(f"{task.name}:{100 * r:.0f}" for (task, _), r in zip(SPECS, right))
            print(f"{step} {100 * part:.1f}% {seconds:.0f}s loss {loss:.4f} {now - began:.2f} s/step "
                  f"{tokens / 1e6:.1f}M | {scores}", flush=True)
        if rank == 0 and now - last_save > 60:
            save_checkpoint(checkpoint, net=net.state_dict(), muon=muon.state_dict(), adam=adam.state_dict(),
                            right=right, step=step, seconds=seconds, tokens=tokens)
            last_save = now
    if rank == 0:
        export(net, args.out)
        print(f"{step} steps, {tokens} tokens, {seconds:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True, help="folder for the checkpoint")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3200)
    parser.add_argument("--minutes", type=float, default=1e9, help="caps the schedule")
    parser.add_argument("--batch", type=int, default=192)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--eager", action="store_true")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    (args.work / "rendezvous").unlink(missing_ok=True)
    if args.workers == 1:
        work(0, args)
    else:
        torch.multiprocessing.spawn(work, (args,), args.workers)


if __name__ == "__main__":
    main()
