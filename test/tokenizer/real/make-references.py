"""Makes references/: what Hugging Face's `tokenizers` and transformers give for the real tokenizers and templates.

    node test/tokenizer/real/prepare.mjs .cache/tokenizers
    python test/tokenizer/real/make-references.py .cache/tokenizers                 # all
    python test/tokenizer/real/make-references.py .cache/tokenizers qwen3 TEXT      # shows one text's ids

References are hashes (SHA-256, 12 hex digits): the tests say which text, template or conversation differs.
"""

import copy
import datetime
import hashlib
import json
import os
import re
import sys
import time
from pathlib import Path

os.environ["TZ"] = "UTC"
time.tzset()

import jinja2
import tokenizers
import transformers
from tokenizers import Tokenizer, normalizers
from transformers.utils import chat_template_utils

HERE = Path(__file__).parent
NOW = datetime.datetime(2025, 1, 2, 15, 4, 5)
RANDOM_TEXTS, RANDOM_IDS, IDS_MAX = 400, 300, 14


class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return NOW


chat_template_utils.datetime = Clock


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def id_digest(ids):
    return digest(",".join(map(str, ids)))


class Random:
    """MINSTD, as in real.ts."""

    def __init__(self):
        self.state = 1

    def below(self, n):
        self.state = self.state * 48271 % 0x7FFFFFFF
        return self.state % n


def corpus(special):
    """The committed texts, then texts made of the tokenizer's own first special tokens, then random mixtures."""
    source = json.loads((HERE / "corpus.json").read_text())
    texts = source["texts"] + [text * times for text, times in source["repeats"]]
    for token in special[:12]:
        texts += [token, f"a{token}b", f" {token} \n", token + token, f"x {token[1:]}{token[:-1]} y"]
    random, mixed = Random(), source["mixed"]
    for _ in range(RANDOM_TEXTS):
        texts.append("".join(mixed[random.below(len(mixed))] for _ in range(1 + random.below(24))))
    return texts


def long_texts():
    """Repeats and long mixtures of the corpus's pieces."""
    random = Random()
    for text in json.loads((HERE / "corpus.json").read_text())["long"]:
        pieces = text["pieces"]
        yield "".join(pieces[random.below(len(pieces))] for _ in range(text["count"]))


def special_tokens(file):
    return [t["content"] for t in sorted(file["added_tokens"], key=lambda t: t["id"]) if t["special"]]


def references(path):
    tokenizer = Tokenizer.from_file(str(path))
    file = json.loads(path.read_text())
    cases = []
    for text in corpus(special_tokens(file)):
        ids = tokenizer.encode(text).ids
        plain = tokenizer.encode(text, add_special_tokens=False).ids
        tokenizer.encode_special_tokens = True
        literal = tokenizer.encode(text, add_special_tokens=False).ids
        tokenizer.encode_special_tokens = False
        decoded = [tokenizer.decode(ids, skip_special_tokens=skip) for skip in (True, False)]
        cases.append([len(ids), id_digest(ids), id_digest(plain), id_digest(literal), digest("\0".join(decoded))])
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    byte_ids = [vocabulary.get(f"<0x{b:02X}>") for b in range(256)] if "ByteFallback" in json.dumps(file["decoder"]) else None
    assert byte_ids is None or byte_ids == list(range(byte_ids[0], byte_ids[0] + 256))
    long = []
    for text in long_texts():
        ids = tokenizer.encode(text).ids
        long.append([len(ids), id_digest(ids), digest(tokenizer.decode(ids))])
    random, size = Random(), max(vocabulary.values()) + 1
    decodes = []
    for i in range(RANDOM_IDS):
        first, below = (byte_ids[0], 256) if byte_ids and i % 3 == 0 else (0, size)
        ids = [first + random.below(below) for _ in range(1 + random.below(IDS_MAX))]
        decodes.append(digest(tokenizer.decode(ids, skip_special_tokens=i % 2 == 0)))
    return {"file": hashlib.sha256(path.read_bytes()).hexdigest(), "size": size, "firstByte": byte_ids and byte_ids[0],
            "cases": cases, "long": long, "decodes": decodes}


def with_twins(conversations):
    """Beside each conversation: one without its system messages, and one whose calls have empty text in place of none."""
    out = list(conversations)
    for one in conversations:
        left = [message for message in one["messages"] if message["role"] != "system"]
        if 0 < len(left) < len(one["messages"]):
            out.append({**one, "name": one["name"] + ", no system", "messages": left})
    for one in list(out):
        if any(message.get("tool_calls") and message["content"] is None for message in one["messages"]):
            messages = [{**m, "content": ""} if m.get("tool_calls") and m["content"] is None else m for m in one["messages"]]
            out.append({**one, "name": one["name"] + ", empty text", "messages": messages})
    return out


def render(template, conversation, add_generation_prompt, **special):
    """The text, or `!` and the template's own message, or `!` alone where rendering failed otherwise."""
    try:
        rendered, _ = chat_template_utils.render_jinja_template(
            conversations=[copy.deepcopy(conversation["messages"])], tools=copy.deepcopy(conversation.get("tools")),
            documents=None, chat_template=template, add_generation_prompt=add_generation_prompt,
            **special)
        return rendered[0]
    except jinja2.exceptions.UndefinedError:
        return "!"
    except jinja2.exceptions.TemplateError as error:
        return "!" + (str(error) if type(error) is jinja2.exceptions.TemplateError else "")
    except Exception:
        return "!"


def marked(value, special, marks):
    """The value with the first character of each special token in its texts replaced."""
    if isinstance(value, str):
        for token in sorted(special, key=len, reverse=True):
            value = value.replace(token, marks[token[0]] + token[1:])
        return value
    if isinstance(value, list):
        return [marked(item, special, marks) for item in value]
    return {key: marked(item, special, marks) for key, item in value.items()} if isinstance(value, dict) else value


def spelled(value, tokens, marks):
    """The value with ⟦n⟧ replaced by a token, ⟦n<⟧ by its first half and ⟦n>⟧ by the other, the first character marked."""
    if isinstance(value, str):
        def token(match):
            text = tokens[int(match[1]) % len(tokens)]
            begin, end = {"": (0, len(text)), "<": (0, len(text) // 2), ">": (len(text) // 2, len(text))}[match[2]]
            return (marks.get(text[0], text[0]) + text[1:])[begin:end]
        return re.sub("⟦([0-9]+)([<>]?)⟧", token, value)
    if isinstance(value, list):
        return [spelled(item, tokens, marks) for item in value]
    if isinstance(value, dict):
        return {spelled(key, tokens, marks): spelled(item, tokens, marks) for key, item in value.items()}
    return value


def own_tokens(special, template):
    """The special tokens of a tokenizer, those that its template writes first."""
    return sorted(special, key=lambda token: token not in template)


def chat_ids(path, conversations):
    """
    Ids of rendered conversations: all special tokens recognised, and only those that the template wrote. Then the same of
    spelled.json.
    """
    tokenizer, guarded = Tokenizer.from_file(str(path)), Tokenizer.from_file(str(path))
    special = special_tokens(json.loads(path.read_text()))
    marks = {c: chr(0xF0000 + i) for i, c in enumerate(sorted({token[0] for token in special}))}
    own = [guarded.normalizer] if guarded.normalizer else []
    guarded.normalizer = normalizers.Sequence([normalizers.Replace(mark, c) for c, mark in marks.items()] + own)
    template = (path.parent / "chat_template.jinja").read_text()
    named = transformers.PreTrainedTokenizerFast.from_pretrained(path.parent).special_tokens_map

    def ids_of(conversation, safe_conversation):
        text = render(template, conversation, True, **named)
        if text.startswith("!"):
            return None
        safe = render(template, safe_conversation, True, **named)
        for mark in marks.values():
            safe = safe.replace(repr(mark)[1:-1], mark)  # where a template prints a list
        unmarked = safe
        for c, mark in marks.items():
            unmarked = unmarked.replace(mark, c)
        assert unmarked == text, conversation["name"]
        return [id_digest(tokenizer.encode(text, add_special_tokens=False).ids),
                id_digest(guarded.encode(safe, add_special_tokens=False).ids)]

    tokens = own_tokens(special, template)
    return {
        "chats": [ids_of(one, marked(one, special, marks)) for one in conversations],
        "spelled": [ids_of(spelled(one, tokens, {}), spelled(one, tokens, marks))
                    for one in json.loads((HERE / "spelled.json").read_text())],
    }


def write(name, value):
    path = HERE / "references" / f"{name}.golden.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value, separators=(",", ":")) + "\n")


def main():
    folder = Path(sys.argv[1])
    if len(sys.argv) == 4:
        tokenizer = Tokenizer.from_file(str(folder / sys.argv[2] / "tokenizer.json"))
        encoding = tokenizer.encode(json.loads(f'"{sys.argv[3]}"'), add_special_tokens=False)
        print(encoding.ids, encoding.tokens)
        return
    versions = {module.__name__: module.__version__ for module in (tokenizers, transformers, jinja2)}
    conversations = with_twins(json.loads((HERE / "conversations.json").read_text()))
    sources = json.loads((folder / "templates.json").read_text())
    for path in sorted(folder.glob("*/tokenizer.json")):
        name = path.parent.name
        value = {"versions": versions, **references(path), **chat_ids(path, conversations)}
        write(name, value)
        rendered = [[ids for ids in value[kind] if ids] for kind in ("chats", "spelled")]
        differing = sum(ids[0] != ids[1] for ids in rendered[1])
        print(name, len(value["cases"]), len(rendered[0]), len(rendered[1]), differing)
    chats = {}
    for source in {source["template"] for source in sources}:
        texts = [render(source, one, prompt, bos_token="<s>", eos_token="</s>") for one in conversations for prompt in (True, False)]
        chats[digest(source)] = " ".join(("!" if t.startswith("!") else "") + ("" if t == "!" else digest(t)) for t in texts)
    write("chats", {"versions": versions, "texts": dict(sorted(chats.items()))})
    print(len(chats), "templates", sum(t.count(" ") + 1 for t in chats.values()), "renderings",
          sum(t.count("!") for t in chats.values()), "refusals")


main()
