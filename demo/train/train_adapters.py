"""Trains adapters on the exported base with peft, in float32, and saves them in bf16.

    python train_adapters.py --base ../base --out ../adapters [name ...]
"""

import argparse
import json
import random
import time
import zlib
from collections import deque
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

import model as m
import tokenizer as tk
from adapters import SHIPPED, SPECS, Spec
from tasks import TASKS, sample

BATCH, WARMUP_STEPS, FLAT_PART = 64, 20, 0.4
EXACT_ENOUGH = 0.995  # over 20 batches: the flat part of the schedule ends early


def draw_batch(spec: Spec, rng: random.Random) -> tuple[torch.Tensor, torch.Tensor]:
    """ids, labels: [BATCH, length]; the labels are the answer and EOS alone."""
    rows, labels = [], []
    for _ in range(BATCH):
        prompt, answer = sample(TASKS[spec.name], rng)
        head, tail = [tk.BOS, *tk.encode(prompt)], [*tk.encode(answer), tk.EOS]
        rows.append(head + tail)
        labels.append([-100] * len(head) + tail)
    length = max(map(len, rows))
    return (torch.tensor([r + [tk.PAD] * (length - len(r)) for r in rows]),
            torch.tensor([r + [-100] * (length - len(r)) for r in labels]))


def lr_scale(step: int, flat_steps: int | None) -> float:
    """Warm-up, flat, then linear to 0 over 1.5 times the flat part. `flat_steps` is None while the flat part lasts."""
    fall = 1.0 if flat_steps is None else 1 - (step - flat_steps) / (1.5 * flat_steps)
    return min(1.0, (step + 1) / WARMUP_STEPS) * max(0.0, fall)


def save(model, spec: Spec, folder: Path) -> None:
    """peft's own files; the tensors as bf16, the base under its public name."""
    # Without the flag peft would add the whole embedding or head beside its low-rank pair.
    model.save_pretrained(folder, save_embedding_layers=False)
    weights = folder / "adapter_model.safetensors"
    save_file({k: v.to(torch.bfloat16).contiguous() for k, v in load_file(weights).items()}, weights,
              metadata={"format": "pt"})
    weights.chmod(0o644)  # safetensors writes 0600
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = m.NAME
    config["target_modules"] = spec.modules  # peft writes a set: fix the order
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    (folder / "README.md").unlink(missing_ok=True)


def train(spec: Spec, base: Path, out: Path) -> None:
    seed = zlib.crc32(spec.name.encode())
    torch.manual_seed(seed)
    rng, began = random.Random(seed), time.monotonic()
    net = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = get_peft_model(net, LoraConfig(
        task_type="CAUSAL_LM", r=spec.rank, lora_alpha=spec.alpha, use_rslora=spec.is_rslora, lora_dropout=0.0,
        target_modules=spec.modules, bias="none"))
    weights = [p for p in model.parameters() if p.requires_grad]
    adam = torch.optim.AdamW(weights, spec.lr, weight_decay=0.0)
    step, flat_steps, recent = 0, None, deque(maxlen=20)
    while flat_steps is None or step < 2.5 * flat_steps:
        ids, labels = draw_batch(spec, rng)
        hidden = model.base_model.model.model(ids, use_cache=False).last_hidden_state
        row, column = (labels[:, 1:] != -100).nonzero(as_tuple=True)
        logits, wanted = model.base_model.model.lm_head(hidden[row, column]), labels[row, column + 1]
        loss = torch.nn.functional.cross_entropy(logits, wanted)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        adam.param_groups[0]["lr"] = spec.lr * lr_scale(step, flat_steps)
        adam.step()
        adam.zero_grad()
        step += 1
        wrong = torch.zeros(BATCH).index_add_(0, row, (logits.argmax(-1) != wanted).float())
        recent.append((wrong == 0).float().mean().item())
        exact = sum(recent) / len(recent)
        is_learnt = step >= 3 * WARMUP_STEPS and exact > EXACT_ENOUGH
        if flat_steps is None and (is_learnt or step >= FLAT_PART * spec.steps):
            flat_steps = step
        if step % 25 == 0:
            print(f"{spec.name} {step} {time.monotonic() - began:.0f}s loss {loss.item():.5f} exact {exact:.3f} "
                  f"flat {flat_steps}", flush=True)
    save(model, spec, out / spec.name)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for name in args.names or [spec.name for spec in SHIPPED]:
        if (args.out / name / "adapter_config.json").exists():
            print(f"{name}: kept (remove its folder to train it again)", flush=True)
        else:
            train(SPECS[name], args.base, args.out)


if __name__ == "__main__":
    main()
