"""Small random checkpoints, PEFT adapters for them, and what transformers + peft compute with both.

Writes test/data/parity/<checkpoint>/ (config.json, safetensors, tokenizer.json, adapters/<name>/, references.json).
Made with Python 3.11, torch 2.15.0, transformers 5.23.0, peft 0.21.2, tokenizers 0.23.3, safetensors 0.8.0, on a CPU:
    python test/parity/make_references.py [checkpoint ...]

Everything is computed in float32 (bf16 and f16 checkpoints are widened, which is exact) with eager attention. A
reference holds, for one prompt: the log-softmax of each next token of the prompt and of the 20 most likely tokens, 64
greedy tokens with their log-softmax, the smallest gap between the two best logits on that path, and what a tolerance
is made of. Prompts are drawn until that gap is over 1e-3, so that rounding can't change the greedy path.
"""

import base64
import contextlib
import json
import math
import pathlib
import shutil
import sys

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (AutoModelForCausalLM, Gemma2Config, Gemma2ForCausalLM, Gemma3ForCausalLM, Gemma3TextConfig, GraniteConfig,
                          GraniteForCausalLM, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, Olmo2Config,
                          Olmo2ForCausalLM, Phi3Config, Phi3ForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config,
                          Qwen3ForCausalLM, SmolLM3Config, SmolLM3ForCausalLM)

OUT = pathlib.Path(__file__).resolve().parents[1] / "data" / "parity"
TOP = 20
STEPS = 64
GAP_MIN = 1e-3
SPECIALS = ["<pad>", "<s>", "</s>"]
COMMON = dict(bos_token_id=1, eos_token_id=2, max_position_embeddings=512)
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}

LLAMA3 = dict(rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=64)
YARN = dict(rope_type="yarn", rope_theta=1000000.0, factor=4.0, original_max_position_embeddings=64)

# Prompts are of 80 tokens or more: longer than the windows, and than LongRoPE's original context in phi3-long.
FAMILY = dict(vocab_size=259, hidden_size=48, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4,
              num_key_value_heads=2, pad_token_id=0)
LONGROPE = dict(rope_type="longrope", rope_theta=10000.0, partial_rotary_factor=0.75,
                short_factor=[1.0, 1.05, 1.1, 1.2, 1.3, 1.5], long_factor=[1.1, 1.5, 2.0, 3.0, 5.0, 8.0])


def family(make, config, fused=False):
    """A family's small base, saved as bf16 in values that f16 has too, and adapters on every site."""
    some = ["qkv_proj", "down_proj"] if fused else ["q_proj", "v_proj", "o_proj", "down_proj"]
    return dict(make=make, dtype="bf16", every_dtype=True, config={**FAMILY, **config}, adapters={
        "r8-all": (dict(r=8, lora_alpha=16, target_modules="all-linear"), "bf16"),
        "r3-some": (dict(r=3, lora_alpha=12, target_modules=some), "bf16"),
        "head-embed": (dict(r=4, lora_alpha=4, target_modules=["lm_head", "embed_tokens"]), "bf16"),
    })


FAMILIES = {
    "mistral": family((MistralForCausalLM, MistralConfig), dict(sliding_window=24, num_hidden_layers=2)),
    "qwen3": family((Qwen3ForCausalLM, Qwen3Config), dict(head_dim=16, tie_word_embeddings=True, use_sliding_window=True,
                                                          sliding_window=40, max_window_layers=2)),
    "gemma2": family((Gemma2ForCausalLM, Gemma2Config), dict(head_dim=20, query_pre_attn_scalar=16, sliding_window=32,
                                                             attn_logit_softcapping=5.0, final_logit_softcapping=6.0)),
    "gemma3": family((Gemma3ForCausalLM, Gemma3TextConfig), dict(
        head_dim=16, query_pre_attn_scalar=24, sliding_window=32,
        layer_types=["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
        rope_parameters=dict(full_attention=dict(rope_type="linear", rope_theta=1e6, factor=8.0),
                             sliding_attention=dict(rope_type="default", rope_theta=1e4)))),
    "phi3": family((Phi3ForCausalLM, Phi3Config), dict(
        hidden_size=64, original_max_position_embeddings=384, rope_parameters=LONGROPE), fused=True),
    "phi3-long": family((Phi3ForCausalLM, Phi3Config), dict(
        hidden_size=64, num_hidden_layers=2, original_max_position_embeddings=64, rope_parameters=LONGROPE), fused=True),
    # Windows without LongRoPE, tied as Phi-4-mini is.
    "phi3-window": family((Phi3ForCausalLM, Phi3Config), dict(
        hidden_size=64, num_hidden_layers=2, sliding_window=24, tie_word_embeddings=True), fused=True),
    # Layer 1 slides, and in SmolLM3 has no positions.
    "qwen2-window": family((Qwen2ForCausalLM, Qwen2Config), dict(
        num_hidden_layers=2, use_sliding_window=True, sliding_window=32, max_window_layers=1)),
    "smollm3-window": family((SmolLM3ForCausalLM, SmolLM3Config), dict(
        num_hidden_layers=2, no_rope_layer_interval=2, use_sliding_window=True, sliding_window=32, tie_word_embeddings=True)),
    "smollm3": family((SmolLM3ForCausalLM, SmolLM3Config), dict(no_rope_layer_interval=2, tie_word_embeddings=True)),
    "olmo2": family((Olmo2ForCausalLM, Olmo2Config), dict()),
    "granite": family((GraniteForCausalLM, GraniteConfig), dict(
        embedding_multiplier=6.0, residual_multiplier=0.6, attention_multiplier=0.2, logits_scaling=0.75)),
}

# name → class, config, dtype of the files, bytes of a shard, adapters. An adapter: LoraConfig's arguments, dtype.
CHECKPOINTS = {
    "llama-gqa": dict(
        make=(LlamaForCausalLM, LlamaConfig), dtype="f32", shard=260_000,
        config=dict(vocab_size=272, hidden_size=96, intermediate_size=136, num_hidden_layers=2, num_attention_heads=6,
                    num_key_value_heads=2, tie_word_embeddings=False, rms_norm_eps=1e-5),
        adapters={
            "r1": (dict(r=1, lora_alpha=2, target_modules=["q_proj", "v_proj"]), "f32"),
            "r64-all": (dict(r=64, lora_alpha=16, target_modules="all-linear"), "f16"),
            "r8-rslora-regex": (dict(r=8, lora_alpha=5, use_rslora=True,
                                     target_modules=r".*\.(?:0|1)\.(?:self_attn\.[qk]|mlp\.down)_proj"), "f32"),
            "head-embed": (dict(r=3, lora_alpha=3, target_modules=["lm_head", "embed_tokens"]), "f32"),
            "patterns": (dict(r=8, lora_alpha=16, target_modules=["q_proj", "o_proj", "up_proj"],
                              rank_pattern={"model.layers.1.self_attn.q_proj": 3, "q_proj": 16, "layers.0.mlp.up_proj": 1},
                              alpha_pattern={"^model.layers.0.self_attn.o_proj": 6, "(o|up)_proj": -9}), "f32"),
        }),
    "llama-tied-bf16": dict(
        make=(LlamaForCausalLM, LlamaConfig), dtype="bf16",
        config=dict(vocab_size=260, hidden_size=80, intermediate_size=120, num_hidden_layers=3, num_attention_heads=5,
                    num_key_value_heads=1, tie_word_embeddings=True, rms_norm_eps=1e-6),
        adapters={
            "r16-all": (dict(r=16, lora_alpha=16, target_modules="all-linear"), "bf16"),
            "head": (dict(r=8, lora_alpha=16, target_modules=["lm_head", "v_proj"]), "bf16"),
            "embed": (dict(r=8, lora_alpha=8, target_modules=["embed_tokens"]), "bf16"),
            "head-embed-rslora": (dict(r=3, lora_alpha=2, use_rslora=True,
                                       target_modules=["lm_head", "embed_tokens", "gate_proj"]), "bf16"),
        }),
    "llama3-rope-f16": dict(
        make=(LlamaForCausalLM, LlamaConfig), dtype="f16",
        config=dict(vocab_size=259, hidden_size=64, intermediate_size=100, num_hidden_layers=2, num_attention_heads=4,
                    num_key_value_heads=4, head_dim=24, tie_word_embeddings=False, rms_norm_eps=1e-5, rope_parameters=LLAMA3),
        adapters={
            "r3-rslora": (dict(r=3, lora_alpha=4, use_rslora=True, target_modules=["k_proj", "o_proj", "down_proj"]), "f16"),
            "r8-mlp": (dict(r=8, lora_alpha=16, target_modules=["gate_proj", "up_proj", "down_proj"]), "f16"),
        }),
    "llama-linear-bias": dict(
        make=(LlamaForCausalLM, LlamaConfig), dtype="f32", old_spelling=True,
        config=dict(vocab_size=259, hidden_size=48, intermediate_size=72, num_hidden_layers=2, num_attention_heads=4,
                    num_key_value_heads=2, tie_word_embeddings=False, attention_bias=True, mlp_bias=True,
                    rope_parameters=dict(rope_type="linear", rope_theta=10000.0, factor=2.0)),
        adapters={
            "one-layer": (dict(r=8, lora_alpha=-8, target_modules=["q_proj", "up_proj"], layers_to_transform=[1]), "f32"),
        }),
    "qwen2-yarn-bf16": dict(
        make=(Qwen2ForCausalLM, Qwen2Config), dtype="bf16",
        config=dict(vocab_size=272, hidden_size=72, intermediate_size=104, num_hidden_layers=3, num_attention_heads=3,
                    num_key_value_heads=1, tie_word_embeddings=True, rope_parameters=YARN),
        adapters={
            "r16": (dict(r=16, lora_alpha=32, target_modules=["q_proj", "k_proj", "v_proj", "up_proj"]), "bf16"),
            "r1-key": (dict(r=1, lora_alpha=1, target_modules=["k_proj"]), "bf16"),
        }),
    "qwen2": dict(
        make=(Qwen2ForCausalLM, Qwen2Config), dtype="f32",
        config=dict(vocab_size=300, hidden_size=64, intermediate_size=96, num_hidden_layers=4, num_attention_heads=8,
                    num_key_value_heads=2, tie_word_embeddings=False, rope_parameters=dict(rope_type="default", rope_theta=1e6)),
        adapters={
            "r64-bf16": (dict(r=64, lora_alpha=64, target_modules=["q_proj", "v_proj"]), "bf16"),
            "r16-exclude": (dict(r=16, lora_alpha=24, target_modules="all-linear",
                                 exclude_modules=["k_proj", "model.layers.2.mlp.up_proj"]), "f16"),
        }),
    **FAMILIES,
}


def write_tokenizer(folder):
    """Bytes alone: ids 0–2 are special, id 3 + i is the i-th letter of GPT-2's byte alphabet."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(SPECIALS + letters)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIALS)
    (folder / "tokenizer.json").write_text(tokenizer.to_str() + "\n")
    settings = dict(tokenizer_class="PreTrainedTokenizerFast", bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings) + "\n")


def write_checkpoint(name, o, folder):
    torch.manual_seed(sum(name.encode()))
    make_model, make_config = o["make"]
    model = make_model(make_config(**COMMON, **json.loads(json.dumps(o["config"]))))
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.dim() == 1:
                is_around_0 = key.endswith("bias") or name.startswith("gemma")  # whose norms add 1
                parameter.copy_(torch.randn_like(parameter) * 0.2 + (0.0 if is_around_0 else 1.0))
            elif "embed_tokens" in key or "lm_head" in key:
                # A tied head gets logits of standard deviation 1.5 from it; the first norm takes any scale.
                parameter.normal_(0, 1.5 / math.sqrt(parameter.shape[1]))
            else:
                parameter.normal_(0, 1 / math.sqrt(parameter.shape[1]))
            if o.get("every_dtype"):
                make_exact(parameter)
    model.to(DTYPES[o["dtype"]]).save_pretrained(folder, max_shard_size=o.get("shard", 10**9))
    if o.get("old_spelling"):
        path = folder / "config.json"
        config = json.loads(path.read_text())
        rope = config.pop("rope_parameters")
        config["rope_theta"] = rope.pop("rope_theta")
        config["rope_scaling"] = {"type": rope.pop("rope_type"), **rope}
        config["torch_dtype"] = config.pop("dtype")
        path.write_text(json.dumps(config, indent=2) + "\n")
    write_tokenizer(folder)


def make_exact(tensor):
    """Rounds to bf16; what f16 keeps only as a subnormal becomes 0. The rest f16 has exactly."""
    tensor.copy_(tensor.to(torch.bfloat16))
    tensor[tensor.abs() < 2.0**-14] = 0


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def write_adapter(folder, checkpoint, config, dtype, seed, is_exact):
    torch.manual_seed(seed)
    model = get_peft_model(load(checkpoint), LoraConfig(task_type="CAUSAL_LM", **json.loads(json.dumps(config))))
    model.peft_config["default"].base_model_name_or_path = f"parity/{checkpoint.name}"
    with torch.no_grad():
        for module in model.modules():
            if not isinstance(getattr(module, "scaling", None), dict):
                continue
            rank, scale = module.r["default"], abs(module.scaling["default"])
            is_embedding = "default" in module.lora_embedding_A
            a = module.lora_embedding_A["default"] if is_embedding else module.lora_A["default"].weight
            b = module.lora_embedding_B["default"] if is_embedding else module.lora_B["default"].weight
            # The delta is about half as large as the module's own output.
            own = 1.5 / math.sqrt(b.shape[0]) if is_embedding else 1.0
            a.normal_(0, 1.0 if is_embedding else 1 / math.sqrt(a.shape[1]))
            b.normal_(0, 0.5 * own / (scale * math.sqrt(rank)))
            if is_exact:
                make_exact(a)
                make_exact(b)
    model.save_pretrained(folder)
    path = folder / "adapter_model.safetensors"
    tensors = {k: v.to(DTYPES[dtype]) if ".lora_" in k else v for k, v in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})
    (folder / "README.md").unlink(missing_ok=True)


def pack(tensor, dtype):
    return base64.b64encode(tensor.to(dtype).contiguous().numpy().tobytes()).decode()


@torch.no_grad()
def reference(model, prompt):
    ids = torch.tensor([prompt])
    out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=STEPS, min_new_tokens=STEPS, do_sample=False, eos_token_id=None, pad_token_id=0)
    everything = model(input_ids=out, output_hidden_states=True)
    logits = everything.logits[0]
    path = logits[len(prompt) - 1 : -1]
    best = path.topk(2).values
    gap = float((best[:, 0] - best[:, 1]).min())
    if path.argmax(-1).tolist() != out[0, len(prompt):].tolist() or gap <= GAP_MIN:
        return None
    logprobs = logits.log_softmax(-1)
    next_ids = out[0, 1:]
    chosen = logprobs[:-1].gather(1, next_ids[:, None])[:, 0]
    top = logprobs[: len(prompt) - 1].topk(TOP)
    # Torch's own rounding: against the same model in float64.
    wide = model.to(torch.float64)
    exact = wide(input_ids=out).logits[0].log_softmax(-1)
    model.to(torch.float32)
    error = float((exact - logprobs.double()).abs().max())
    with torch.no_grad():
        final = everything.hidden_states[-1][0].norm(dim=-1).max()
    return dict(prompt=prompt, greedy=out[0, len(prompt):].tolist(), gap=gap, torchError=error, hiddenNorm=float(final),
                headNorm=float(head_weight(model).norm(dim=-1).max()),
                logprobs=pack(chosen, torch.float32), topIds=pack(top.indices, torch.int16), topLogprobs=pack(top.values, torch.float32))


@torch.no_grad()
def write_crossing(folder):
    """An answer in whose midst a sequence becomes longer than LongRoPE's original context: what `generate` computes, which
    starts anew with the long factors there."""
    model = load(folder)
    for attempt in range(200):
        generator = torch.Generator().manual_seed(attempt)
        ids = torch.tensor([[1] + torch.randint(3, 259, (39,), generator=generator).tolist()])
        out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=STEPS, min_new_tokens=STEPS,
                             do_sample=False, eos_token_id=None, pad_token_id=0, output_logits=True,
                             return_dict_in_generate=True)
        logits = torch.cat(out.logits)
        best = logits.topk(2).values
        if float((best[:, 0] - best[:, 1]).min()) > 0.02:
            break
    greedy = out.sequences[0, ids.shape[1]:]
    logprobs = logits.log_softmax(-1).gather(1, greedy[:, None])[:, 0]
    text = json.dumps(dict(prompt=ids[0].tolist(), greedy=greedy.tolist(), logprobs=[round(p, 6) for p in logprobs.tolist()]))
    (folder / "crossing.json").write_text(text + "\n")


def head_weight(model):
    """The head with its adapter merged, whose rows bound the logits."""
    head = model.get_output_embeddings()
    if not hasattr(head, "get_delta_weight") or "default" not in getattr(head, "lora_A", {}):
        return getattr(head, "weight", None) if not hasattr(head, "base_layer") else head.base_layer.weight
    return head.base_layer.weight + head.get_delta_weight("default")


def write_references(folder, o):
    cases = []
    for i, name in enumerate([None, *o["adapters"]]):
        model = load(folder)
        if name is not None:
            with contextlib.suppress(AttributeError):
                del model.hf_device_map
            model = PeftModel.from_pretrained(model, folder / "adapters" / name).eval()
        for attempt in range(200):
            generator = torch.Generator().manual_seed(1000 * i + attempt)
            length = int(torch.randint(80, 201, (1,), generator=generator))
            prompt = [1] + torch.randint(3, 259, (length - 1,), generator=generator).tolist()
            found = reference(model, prompt)
            if found:
                break
        else:
            raise RuntimeError(f"{folder.name}/{name}: no prompt has a gap over {GAP_MIN}")
        print(f"{folder.name:20} {str(name):20} prompt {length:3} attempts {attempt + 1:3} gap {found['gap']:.4f} "
              f"torch's error {found['torchError']:.1e} scale {found['hiddenNorm'] * found['headNorm']:.0f}")
        cases.append(dict(adapter=name, **found))
    text = ",\n".join(json.dumps(case) for case in cases)
    dtypes = json.dumps(["f32", "bf16", "f16"] if o.get("every_dtype") else [o["dtype"]])
    (folder / "references.json").write_text(
        f'{{"dtype":"{o["dtype"]}","dtypes":{dtypes},"top":{TOP},"cases":[\n{text}\n]}}\n')


def main(names):
    torch.set_num_threads(2)
    for name in names or CHECKPOINTS:
        o = CHECKPOINTS[name]
        folder = OUT / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_checkpoint(name, o, folder)
        for seed, (adapter, (config, dtype)) in enumerate(o["adapters"].items()):
            write_adapter(folder / "adapters" / adapter, folder, config, dtype, seed, o.get("every_dtype"))
        write_references(folder, o)
        if name == "phi3-long":
            write_crossing(folder)


if __name__ == "__main__":
    main(sys.argv[1:])
