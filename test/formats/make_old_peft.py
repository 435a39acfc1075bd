"""Writes test/formats/golden/peft: adapters of the tiny base of fixtures.ts, as PEFT of several versions saves them.

    for v in 0.4.0 0.6.2 0.10.0 0.14.0 0.21.2; do
      pip install --no-deps --target /tmp/peft/$v peft==$v
      PYTHONPATH=/tmp/peft/$v python test/formats/make_old_peft.py
    done

One version a run: that which Python finds. Made with Python 3.11, torch 2.15.0, transformers 5.23.0, safetensors 0.8.0. A weight's
values depend on its module and half alone, so what the folders of one name compute is the same. Each is loaded again, and must give
the logits that it gave before it was saved; references.json has those of a prompt's last token, in which the versions agree.
"""

import inspect
import json
import pathlib
import shutil
import zlib

import peft
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

OUT = pathlib.Path(__file__).resolve().parent / "golden" / "peft"
PROMPT = [1, 17, 5, 33, 8, 21, 2, 39]

ADAPTERS = {
    "q-v": dict(target_modules=["q_proj", "v_proj"]),
    "regex": dict(target_modules=r".*\.1\.(?:self_attn\.o|mlp\.down)_proj", lora_dropout=0.1),
    "layers": dict(target_modules=["k_proj", "up_proj"], layers_to_transform=[1], layers_pattern="layers"),
    "embed": dict(target_modules=["embed_tokens", "lm_head", "gate_proj"]),
    # From 0.5 on.
    "patterns": dict(target_modules=["q_proj", "o_proj"], rank_pattern={"o_proj": 2}, alpha_pattern={"o_proj": 6}),
    # From 0.7 on.
    "rslora": dict(target_modules=["v_proj", "up_proj"], use_rslora=True),
}


def base() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
                         num_key_value_heads=2, max_position_embeddings=64)
    return LlamaForCausalLM(config).eval()


@torch.no_grad()
def fill(model) -> None:
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            generator = torch.Generator().manual_seed(zlib.crc32(name.removesuffix(".weight").encode()))
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model(input_ids=torch.tensor([PROMPT])).logits[0]


def main() -> None:
    folder = OUT / peft.__version__
    shutil.rmtree(folder, ignore_errors=True)
    file = OUT / "references.json"
    references = json.loads(file.read_text()) if file.exists() else {}
    known = inspect.signature(LoraConfig).parameters
    for name, options in ADAPTERS.items():
        if not all(key in known for key in options):
            continue
        config = LoraConfig(r=4, lora_alpha=16, task_type="CAUSAL_LM", base_model_name_or_path="test/tiny", **options)
        model = get_peft_model(base(), config).eval()
        model.peft_config["default"].base_model_name_or_path = "test/tiny"
        fill(model)
        before = logits(model)
        assert not torch.allclose(before, logits(base()), atol=1e-3)
        model.save_pretrained(folder / name, safe_serialization=True)
        after = logits(PeftModel.from_pretrained(base(), folder / name).eval())
        assert torch.equal(before, after), f"{peft.__version__} {name}: {(before - after).abs().max()}"
        last = [round(value, 5) for value in before[-1].tolist()]
        known_last = references.setdefault(name, last)
        assert max(abs(a - b) for a, b in zip(last, known_last)) < 1e-4, f"{peft.__version__} {name} computes something else"
        for path in folder.rglob("*"):
            if path.is_file() and path.name not in ("adapter_config.json", "adapter_model.safetensors"):
                path.unlink()
    file.write_text(json.dumps(references).replace("], ", "],\n") + "\n")
    print(peft.__version__, sorted(path.name for path in folder.iterdir()))


main()
