"""Numbers that the tests of src/formats compare with: transformers' rotary tables, Python's regular expressions, and
PEFT's own choice of modules, ranks and scales.

Made with Python 3.11, torch 2.15.0, transformers 5.23.0, peft 0.21.2:
    python test/formats/make_golden.py
"""

import json
import pathlib
import random
import re
import struct

import torch
import transformers
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

OUT = pathlib.Path(__file__).parent / "golden"


def hex_floats(values):
    return "".join(struct.pack("<f", v).hex() for v in values.tolist())


def rope_cases():
    shape = dict(hidden_size=1024, num_attention_heads=8, num_key_value_heads=8, intermediate_size=64, vocab_size=32,
                 num_hidden_layers=1)
    llama3 = dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192)
    settings = [
        dict(rope_theta=10000.0),
        dict(rope_theta=500000.0, head_dim=64),
        dict(rope_parameters={"rope_theta": 1000000.0, "rope_type": "default"}),
        dict(rope_theta=10000.0, rope_scaling={"type": "linear", "factor": 4.0}),
        dict(rope_parameters={"rope_theta": 5e6, "rope_type": "linear", "factor": 2.5}),
        dict(rope_theta=10000.0, rope_scaling={"type": "dynamic", "factor": 3.7}),
        dict(rope_theta=500000.0, max_position_embeddings=131072, rope_scaling={"rope_type": "llama3", **llama3}),
        dict(rope_theta=500000.0, head_dim=64, max_position_embeddings=131072,
             rope_scaling={"rope_type": "llama3", **llama3, "factor": 32.0}),
        dict(rope_theta=1000000.0, max_position_embeddings=32768,
             rope_scaling={"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}),
        dict(rope_theta=10000.0, max_position_embeddings=4096, rope_scaling={"type": "yarn", "factor": 40.0, "mscale": 1.0,
             "mscale_all_dim": 0.707, "beta_fast": 32, "beta_slow": 1, "original_max_position_embeddings": 4096}),
        dict(rope_theta=150000.0, head_dim=64, max_position_embeddings=131072, rope_scaling={"rope_type": "yarn",
             "factor": 32.0, "truncate": False, "original_max_position_embeddings": 4096}),
        dict(rope_theta=10000.0, max_position_embeddings=8192, rope_scaling={"rope_type": "yarn", "factor": 2.0,
             "attention_factor": 1.5}),
    ]
    cases = []
    for setting in settings:
        rotary = LlamaRotaryEmbedding(LlamaConfig(**shape, **json.loads(json.dumps(setting))))
        cases.append(dict(config={**shape, **setting}, invFreq=hex_floats(rotary.inv_freq),
                          factor=float(rotary.attention_scaling)))
    return cases


NAMES = ["model", "model.layers.0", "model.layers.0.self_attn.q_proj", "model.layers.11.mlp.down_proj",
         "model.embed_tokens", "lm_head", "a]b", "x{,2}", "aaa", "AaB", "a.b", "model.layers.3.mlp.act_fn", ""]
PATTERNS = [
    r".*q_proj", r".*\.(q|k|v)_proj", r"model\.layers\.\d+\.(?:self_attn|mlp)\.\w+", r"(?P<x>model)\..*", r"(?i)AAB",
    r"(?i:aab)", r"a(?i:A)b", r"(?i)[^a]ab", r"[]a]+b", r"[^]a]b", r"x\{,2\}", r"x{,2}", r"a{,3}", r"a{2,}", r"a{3}", r"a{1,2}",
    r"a{,}", r"x{,2\}", r"^(?!.*mlp).*layers.*", r"^(?!.*(?:mlp|self)).*", r".*(?<=q_)proj", r".*(?<!q_)proj", r"lm_head|model", r"(lm_head|model)$",
    r"\Amodel\Z", r".*\b0\b.*", r".*\B_proj", r"[\w.]+", r"[^\W_]+", r"\x61+", r"\u0061a+", r"a\.b", r"a.b", r"(?#note)aaa",
    r"(a+)+b", r"(a*)*", r"(?:a|aa)+", r"", r"()", r"(|a)aa", r"[a-c]{3}", r"[a\-c]+", r"[-a]+", r"[a-]+", r"(?s).*", r"(?im)AA[A]",
    r"model(\.layers(\.(0|11)(\..*)?)?)?", r"(?=.*attn).*", r"(?=model)model.*(?<=proj)", r".*?_proj", r"a+?a", r"a??aaa?",
    # refused by Python
    r"(", r")", r"a**", r"*a", r"a{3,2}", r"[a", r"[b-a]", r"\q", r"(?<=a*)b", r"a(?i)b", r"(?<n>a)", r"\x6", r"a\Z*", r"(?P<1>a)",
]
# Python has these, the matcher refuses them.
REFUSED = [r"(a)\1", r"(?P<x>a)(?P=x)", r"(?>a+)b", r"a++b", r"(a)?(?(1)a|b)", r"(?x)a a", r"\N{DIGIT ONE}"]


def regex_cases():
    cases = []
    for pattern in PATTERNS:
        try:
            compiled = re.compile(pattern)
            cases.append(dict(pattern=pattern, matches=[n for n in NAMES if compiled.fullmatch(n)]))
        except re.error:
            cases.append(dict(pattern=pattern, matches=None))
    rng = random.Random(7)
    pieces = ["a", "b", ".", "a*", "(a|b)", "[ab]", "b?", "(?:ab)+", "a{1,2}", "(?!b)", "(?=a)", "\\b", "(a|ab)*", "(?<=a)", "|"]
    texts = ["".join(rng.choice("ab") for _ in range(rng.randrange(7))) for _ in range(24)]
    for _ in range(150):
        pattern = "".join(rng.choice(pieces) for _ in range(rng.randrange(1, 6)))
        compiled = re.compile(pattern)
        cases.append(dict(pattern=pattern, texts=texts, matches=[t for t in texts if compiled.fullmatch(t)]))
    return dict(names=NAMES, cases=cases, refused=REFUSED)


def target_cases():
    """What real PEFT makes of a config: modules with their rank and scale."""
    layers = 4
    model_config = dict(hidden_size=16, num_attention_heads=2, num_key_value_heads=1, intermediate_size=24, vocab_size=40,
                        num_hidden_layers=layers, max_position_embeddings=64)
    configs = [
        dict(target_modules=["q_proj", "v_proj"], r=4, lora_alpha=8),
        dict(target_modules="all-linear", r=4, lora_alpha=8),
        dict(target_modules="ALL-linear", exclude_modules=["k_proj", "model.layers.0.mlp.up_proj"], r=2, lora_alpha=-3),
        dict(target_modules=r".*layers\.(0|2)\..*(?:q|down)_proj", r=3, lora_alpha=7, use_rslora=True),
        dict(target_modules=r".*_proj", exclude_modules=r".*\.1\..*", r=3, lora_alpha=0),
        dict(target_modules=["q_proj", "down_proj"], layers_to_transform=[1, 3], r=4),
        dict(target_modules=["q_proj", "down_proj", "lm_head"], layers_to_transform=2, layers_pattern="layers", r=4),
        dict(target_modules=["q_proj", "embed_tokens", "model.layers.3.mlp.up_proj"], layers_to_transform=[0, 1], r=4),
        dict(target_modules=["q_proj"], layers_to_transform=[0, 1], layers_pattern=["h", "model.layers"], r=4),
        dict(target_modules=["lm_head", "embed_tokens", "o_proj", "self_attn.k_proj", "model.layers.1.mlp.gate_proj"], r=5),
        dict(target_modules=["q_proj", "k_proj", "v_proj"], r=8, lora_alpha=16,
             rank_pattern={"q_proj": 2, "model.layers.1.self_attn.q_proj": 3, r"layers\.[23]\.self_attn\.k_proj": 4},
             alpha_pattern={r"^model.layers.0.self_attn.v_proj": 5, "(q|v)_proj": 6, "self_attn.v_proj": 99}),
        dict(target_modules=["q_proj", "v_proj"], r=8, lora_alpha=16, use_rslora=True,
             rank_pattern={"proj": 2, "^q_proj": 3, "attn.v_proj": 5, "self_attn.v_proj": 6},
             alpha_pattern={"model.layers.[0-1].self_attn.q_proj": 1.5, "q_proj|v_proj": 2.5}),
        dict(target_modules=["proj", "q_proj", "c_attn"], r=2),
    ]
    cases = []
    for config in configs:
        model = get_peft_model(LlamaForCausalLM(LlamaConfig(**model_config)), LoraConfig(**json.loads(json.dumps(config))))
        found = {}
        for name, module in model.base_model.model.named_modules():
            if isinstance(getattr(module, "scaling", None), dict):
                found[name] = [module.r["default"], module.scaling["default"]]
        cases.append(dict(config=config, modules=found))
    return dict(layers=layers, cases=cases)


def write(name, value):
    text = json.dumps(value, indent=1) if name == "targets" else json.dumps(value)
    (OUT / f"{name}.golden.json").write_text(text + "\n")


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    write("rope", dict(transformers=transformers.__version__, torch=torch.__version__, cases=rope_cases()))
    write("regex", regex_cases())
    write("targets", target_cases())
