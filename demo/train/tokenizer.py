"""The demo's tokenizer: byte-level BPE with no merges. bos 0, eos 1, pad 2, byte b = 3 + b; 259 is reserved."""

import json
from pathlib import Path

BOS, EOS, PAD, BYTE_FIRST = 0, 1, 2, 3
VOCAB = 260
TAG_FIRST = VOCAB  # ids of the private task tags; they exist during pre-training only
CONTEXT_TOKENS = 256


def encode(text: str) -> list[int]:
    return [BYTE_FIRST + b for b in text.encode()]


def byte_characters() -> list[str]:
    """GPT-2's printable stand-in for each byte, as the ByteLevel pre-tokenizer writes it."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    stand_in = {b: chr(b) for b in plain}
    for i, b in enumerate(b for b in range(256) if b not in stand_in):
        stand_in[b] = chr(256 + i)
    return [stand_in[b] for b in range(256)]


def write_tokenizer(folder: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    special = ["<s>", "</s>", "<pad>"]
    vocab = {token: i for i, token in enumerate(special + byte_characters() + ["<reserved>"])}
    assert len(vocab) == VOCAB
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", BOS)])
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special + ["<reserved>"]])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>",
        "model_max_length": CONTEXT_TOKENS, "clean_up_tokenization_spaces": False, "add_bos_token": True,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
