"""Writes test/formats/golden/saved: one adapter of the tiny base of fixtures.ts as libraries save it.

one: peft's save_pretrained; shards: transformers' save_pretrained with max_shard_size; no-prefix: transformers' with
save_peft_format=False; named: the model's own state dict, adapter name and all. Made with torch 2.15.0, transformers 5.23.0,
peft 0.21.2, safetensors 0.8.0.
"""

import os
import shutil
import sys

import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

out = os.path.join(os.path.dirname(os.path.abspath(__file__)), "golden", "saved")


def base() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=40,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
        )
    )


def main() -> None:
    shutil.rmtree(out, ignore_errors=True)
    config = LoraConfig(
        r=4,
        lora_alpha=16,
        target_modules=["q_proj", "v_proj"],
        init_lora_weights=False,
        task_type="CAUSAL_LM",
        base_model_name_or_path="test/tiny",
    )
    model = base()
    model.add_adapter(config)
    model.save_pretrained(os.path.join(out, "shards"), max_shard_size="1KB")
    model.save_pretrained(os.path.join(out, "no-prefix"), save_peft_format=False)
    whole = os.path.join(out, "whole")
    model.save_pretrained(whole)
    peft = PeftModel.from_pretrained(base(), whole)
    peft.save_pretrained(os.path.join(out, "one"))
    named = os.path.join(out, "named")
    os.makedirs(named)
    shutil.copy(os.path.join(out, "one", "adapter_config.json"), named)
    state = {name: tensor for name, tensor in peft.state_dict().items() if "lora_" in name}
    save_file(state, os.path.join(named, "adapter_model.safetensors"))
    shutil.rmtree(whole)
    for folder, _, names in os.walk(out):
        for name in names:
            if not name.endswith(".safetensors") and name not in ("adapter_config.json", "model.safetensors.index.json"):
                os.remove(os.path.join(folder, name))


sys.exit(main())
