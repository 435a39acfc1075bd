"""Makes test/tokenizer/golden: small tokenizers of each kind, and what Hugging Face's `tokenizers` gives for them.

    python test/tokenizer/make-golden.py                    # everything in golden/; of stories260K if ../shared/models has it
    python test/tokenizer/make-golden.py FOLDER OUT.json    # references of any tokenizer.json
"""

import json
import random
import sys
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = Path(__file__).parent
GOLDEN = HERE / "golden"
STORIES = HERE.resolve().parents[2] / "shared/models/stories260K/hf"

TRAINING = [
    "Once upon a time there was a little girl named Lily. She didn't like the rain, but she'd play with her dog.",
    "the quick brown fox jumps over the lazy dog and then the dog isn't there; they've gone, we'll see, I'm here",
    "def f(x):\n    return x + 1\n\n\nclass A:\n\tpass  # 12345 67890", "  indented    text\n\n\n", "Grüße aus München, café déjà vu",
    "你好，世界 你好", "Привет, мир Привет", "مرحبا بالعالم", "hello hello world world 2024 2025 100 200 300",
] * 3

CORPUS = [
    "", " ", "  ", "   ", "\n", "\n\n", "\n\n\n\n\n", "\t", " \t \n ", "\r\n\r\n", "a", " a", "a ", "  a  b   c    ",
    "Hello, world!", "Once upon a time, there was a little girl named Lily.", "I'm here, they've gone, we'LL SEE, it'S, don't",
    "12345 1,234.56 0x1F ½ ² ③ ٣ १२३", "ﬁ ﬂ Å Å é é 한국어 한국어 ﷽", "naïve café naïve café",
    "🦊", "🦊🦊 👩‍👩‍👧‍👦 👍🏽 🇩🇪 ❤️ ☺️", "e\u0301\u0323 \u200d\u200c\u200b \ufeffBOM\ufeff", "مرحبا بالعالم \u202eabc\u202c שלום", "你好，世界。日本語のテキスト、カタカナ 𠮷野家",
    "\x00\x01\x02\x1b[31m\x7f\x80\x85\x9f", "a\u00a0b\u2003c\u3000d\u2028e\u2029f", "x\u0085y\x1cz\x0bw\x0cv", "if (x == 1) {\n\treturn x  /* ok */;\n}\n",
    "<s>", "</s>", "<unk>", "text<s>text</s> text", "<|user|> hi <|end|>  \n there<|end|>", "a <tool> b <tool>c", "two words here two  words", "<0x41><0x0A>▁a▁", "▁▁ ▁", "Ġ Ċ ĠĠ",
    "'ſ 'S 's ’s İi ıI ß ẞ ǅ", "ḿ𝐀𝟘 ⅷ ㈱ ꙮ", "…—–“quotes”‘x’ !?!?!! $$$ ^^ ~~ ``", "a" * 300, " " * 100 + "x", "ab" * 150, "\n" * 70, "=" * 99, "the " * 60, "🦊" * 20,
    "http://example.com/a?b=c&d=e#f user@host.org", "Zalgo ẗ̴̡̢̛̖͓͈͔͇̥̮͕̠̬̳͓̓̾́̑͗͛͗̕͝ḙ̸̓x̷̛t", "\ue000\uf8ff\U0010ffff\ufffd\ufffe", "ไทย ภาษา क्षि நி", "\u1680ogham\u180e mongolian\u2060",
]

LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPECIAL = [AddedToken(t, special=True, normalized=False) for t in ("<unk>", "<s>", "</s>", "<|user|>")]
EXTRA = [
    AddedToken("<|end|>", special=True, rstrip=True, normalized=False),
    AddedToken("<tool>", special=False, lstrip=True, normalized=False),
    AddedToken("two words", special=False, normalized=True),
]


def trained(tokenizer, vocab_size, alphabet):
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TRAINING, trainer)
    return tokenizer


def byte_level(pre, normalizer=None, ignore_merges=False):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre
    if normalizer:
        tokenizer.normalizer = normalizer
    trained(tokenizer, 420, pre_tokenizers.ByteLevel.alphabet())
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="bos $A", special_tokens=[{"id": "bos", "ids": [1], "tokens": ["<s>"]}])
    tokenizer.add_tokens(EXTRA)
    return tokenizer


def split(regex):
    return pre_tokenizers.Split(Regex(regex), behavior="isolated")


def sentencepiece(normalizer, pre, decoder, extra=()):
    """BPE over characters with byte fallback: trained by `tokenizers`, then the byte tokens are put into the vocabulary."""
    raw = Tokenizer(models.BPE())
    raw.normalizer = normalizers.Replace(" ", "▁")
    raw.pre_tokenizer = pre_tokenizers.Split("▁", behavior="merged_with_next")
    model = json.loads(trained(raw, 300, []).to_str())["model"]
    tokens = ["<unk>", "<s>", "</s>", "<|user|>", *(f"<0x{b:02X}>" for b in range(256))]
    tokens += [t for t in model["vocab"] if t not in tokens and all(ord(c) < 0x250 or c == "▁" for c in t)]
    tokens += ["▁▁", "▁▁▁▁"]
    vocab = {t: i for i, t in enumerate(tokens)}
    merges = [tuple(m) for m in model["merges"]]
    merges = [m for m in merges if m[0] in vocab and m[1] in vocab and "".join(m) in vocab] + [("▁", "▁"), ("▁▁", "▁▁")]
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer, tokenizer.decoder = normalizer, decoder
    if pre:
        tokenizer.pre_tokenizer = pre
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.add_tokens([*EXTRA, *extra])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def kinds():
    d, n, p = decoders, normalizers, pre_tokenizers
    yield "gpt2", byte_level(p.ByteLevel(add_prefix_space=False))
    yield "prefix-space", byte_level(p.ByteLevel(add_prefix_space=True))
    yield "llama3", byte_level(p.Sequence([split(LLAMA3), p.ByteLevel(add_prefix_space=False, use_regex=False)]), ignore_merges=True)
    yield "qwen", byte_level(p.Sequence([split(QWEN), p.ByteLevel(add_prefix_space=False, use_regex=False)]), n.NFC())
    yield "code", byte_level(p.Sequence([
        split("[\r\n]"), p.Digits(individual_digits=True), p.Punctuation("contiguous"), p.ByteLevel(add_prefix_space=False)]))
    fallback = [d.Replace("▁", " "), d.ByteFallback(), d.Fuse()]
    yield "llama2", sentencepiece(
        n.Sequence([n.Prepend("▁"), n.Replace(" ", "▁")]), None, d.Sequence([*fallback, d.Strip(" ", 1, 0)]))
    newlines = [AddedToken("\n" * i, normalized=False) for i in range(1, 5)]
    yield "gemma", sentencepiece(n.Replace(" ", "▁"), p.Split(" ", behavior="merged_with_previous"), d.Sequence(fallback), newlines)
    yield "metaspace", sentencepiece(n.NFKC(), p.Metaspace("▁", prepend_scheme="first", split=True), d.Sequence([
        d.ByteFallback(), d.Metaspace("▁", prepend_scheme="first", split=True)]))
    yield "always", sentencepiece(
        n.NFC(), p.Metaspace("▁", prepend_scheme="always", split=False), d.Metaspace("▁", prepend_scheme="always", split=False))


def references(tokenizer):
    rng = random.Random(1)
    size = max(tokenizer.get_vocab().values()) + 1
    cases = []
    for text in CORPUS:
        ids = tokenizer.encode(text).ids
        plain = tokenizer.encode(text, add_special_tokens=False).ids
        cases.append({"text": text, "ids": ids, "plain": plain, "skipped": tokenizer.decode(ids, skip_special_tokens=True),
                      "whole": tokenizer.decode(ids, skip_special_tokens=False)})
    decodes = []
    while len(decodes) < 60:
        ids = [rng.randrange(size) for _ in range(rng.randrange(1, 12))]
        text = tokenizer.decode(ids, skip_special_tokens=len(decodes) % 2 == 0)
        decodes.append({"ids": ids, "skip": len(decodes) % 2 == 0, "text": text})
    return {"cases": cases, "decodes": decodes}


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, separators=(",", ":")) + "\n")


def main():
    if len(sys.argv) == 3:
        tokenizer = Tokenizer.from_file(str(Path(sys.argv[1]) / "tokenizer.json"))
        write(Path(sys.argv[2]), references(tokenizer))
        return
    for name, tokenizer in kinds():
        write(GOLDEN / name / "tokenizer.json", json.loads(tokenizer.to_str()))
        write(GOLDEN / name / "references.json", references(tokenizer))
    if STORIES.exists():
        write(GOLDEN / "stories260K.references.json", references(Tokenizer.from_file(str(STORIES / "tokenizer.json"))))


main()
