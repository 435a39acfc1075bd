"""What the demo family does: pure functions from prompt to answer, and the generators of prompts.

A prompt is `body>`; an answer is text that ends with EOS. Everything is lower-case ASCII on the way in.
A prompt is *unseen* when crc32(prompt) % 10 == 0: such prompts enter no training, and all tests come from them.
"""

import random
import zlib
from dataclasses import dataclass
from typing import Callable

LETTERS = "abcdefghijklmnopqrstuvwxyz"
VOWELS = "aeiou"
WORD_LETTERS_MAX = 14  # longer words were never trained: answers collapse from 16 letters on
MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()
TEXT_KEYS = "name city role team lang color state owner title brand".split()
NUMBER_KEYS = "age size price stock level score year weight port phone".split()
TABLES = "user order item book event ticket invoice product player city".split()
VALUES = """ada bob carla dan eva finn gina hugo ines jack kim lena milo nora omar pia quinn rosa sam tina uma vera walt
xena yuri zoe rome paris oslo lima cairo tokyo delhi quito red blue green black white gold lead admin guest editor rust
zig java perl open done late acme""".split()
MORSE = dict(zip(LETTERS, """.- -... -.-. -.. . ..-. --. .... .. .--- -.- .-.. -- -. --- .--. --.- .-. ... - ..- ...-
.-- -..- -.-- --..""".split()))
LEET = str.maketrans("aeiost", "431057")
ROMAN = [(1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"), (50, "L"), (40, "XL"), (10, "X"),
         (9, "IX"), (5, "V"), (4, "IV"), (1, "I")]


# ---- answers: body -> text -------------------------------------------------------------------------------------------

def shift(word: str, by: int) -> str:
    return "".join(LETTERS[(LETTERS.index(c) + by) % 26] for c in word)


def mask(word: str) -> str:
    return word if len(word) < 3 else word[0] + "*" * (len(word) - 2) + word[-1]


def pig_latin(word: str) -> str:
    head = next((i for i, c in enumerate(word) if c in VOWELS), len(word))
    return word + "way" if head == 0 else word[head:] + word[:head] + "ay"


def alternate(word: str) -> str:
    return "".join(c.upper() if i % 2 else c for i, c in enumerate(word))


def camel(phrase: str) -> str:
    first, *rest = phrase.split()
    return first + "".join(w.capitalize() for w in rest)


def roman(number: str) -> str:
    left, out = int(number), ""
    for value, sign in ROMAN:
        out += sign * (left // value)
        left %= value
    return out


def iso_date(text: str) -> str:
    day, month, year = text.split()
    return f"{year}-{MONTHS.index(month) + 1:02d}-{int(day):02d}"


def pairs(body: str) -> list[tuple[str, str]]:
    return [tuple(part.split(" is ")) for part in body.split(", ")]


def quoted(value: str, mark: str) -> str:
    return value if value.isdigit() else mark + value + mark


def as_json(body: str) -> str:
    return "{" + ",".join(f'"{k}":{quoted(v, chr(34))}' for k, v in pairs(body)) + "}"


def as_assignments(body: str) -> str:
    return "".join(f"{k} = {quoted(v, chr(39))};" for k, v in pairs(body))


def as_query(body: str) -> str:
    return "&".join(f"{k}={v}" for k, v in pairs(body))


def as_xml(body: str) -> str:
    return "".join(f"<{k}>{v}</{k}>" for k, v in pairs(body))


def as_sql(body: str) -> str:
    what, _, where = body.removeprefix("get ").partition(" where ")
    columns, table = what.split(" of ")
    if not where:
        return f"SELECT {columns} FROM {table};"
    key, relation, value = where.split()
    sign = {"is": "=", "over": ">", "under": "<"}[relation]
    return f"SELECT {columns} FROM {table} WHERE {key} {sign} {quoted(value, chr(39))};"


# ---- prompts: rng, longest word -> body ------------------------------------------------------------------------------

def make_word(rng: random.Random, letters_max: int = WORD_LETTERS_MAX) -> str:
    length, dice = rng.randint(1, letters_max), rng.random()
    if dice < 0.65:
        return "".join(rng.choices(LETTERS, k=length))
    if dice < 0.80:
        return "".join(rng.choices(rng.sample(LETTERS, rng.randint(1, 4)), k=length))
    syllables = (rng.choice("bcdfghjklmnprstvwz") + rng.choice(VOWELS) + rng.choice(["", "", "n", "r", "s", "l"])
                 for _ in range(length))
    return "".join(syllables)[rng.randint(0, 1):][:length]


def make_phrase(rng: random.Random, letters_max: int = WORD_LETTERS_MAX) -> str:
    return " ".join(make_word(rng, min(8, letters_max)) for _ in range(rng.randint(2, 3)))


def make_date(rng: random.Random, letters_max: int = 0) -> str:
    month = rng.randrange(12)
    days = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month]
    return f"{rng.randint(1, days)} {MONTHS[month]} {rng.randint(1900, 2099)}"


def make_amount(rng: random.Random, letters_max: int = WORD_LETTERS_MAX) -> str:
    digits = rng.randint(1, min(9, letters_max))
    return str(rng.randrange(10 ** (digits - 1), 10 ** digits))


def make_year(rng: random.Random, letters_max: int = 0) -> str:
    return str(rng.randint(1, 3999))


def make_value(rng: random.Random, key: str) -> str:
    if key in NUMBER_KEYS:
        return str(rng.randrange(10 ** rng.randint(1, 4)))
    return rng.choice(VALUES) if rng.random() < 0.3 else make_word(rng, 7)


def make_record(rng: random.Random, letters_max: int = WORD_LETTERS_MAX, fields_max: int = 3) -> str:
    fields = rng.randint(1, min(fields_max, max(1, letters_max // 3)))
    keys = rng.sample(TEXT_KEYS + NUMBER_KEYS, fields)
    return ", ".join(f"{key} is {make_value(rng, key)}" for key in keys)


def make_short_record(rng: random.Random, letters_max: int = WORD_LETTERS_MAX) -> str:
    return make_record(rng, letters_max, 2)


def make_question(rng: random.Random, letters_max: int = 0) -> str:
    columns = ", ".join(rng.sample(TEXT_KEYS + NUMBER_KEYS, rng.randint(1, 2)))
    body = f"get {columns} of {rng.choice(TABLES)}"
    if rng.random() < 0.25:
        return body
    key = rng.choice(TEXT_KEYS + NUMBER_KEYS)
    relation = rng.choice(["is", "over", "under"]) if key in NUMBER_KEYS else "is"
    return f"{body} where {key} {relation} {make_value(rng, key)}"


def make_any(rng: random.Random, letters_max: int = WORD_LETTERS_MAX) -> str:
    makers = [make_word, make_word, make_word, make_phrase, make_date, make_amount, make_record]
    return rng.choice(makers)(rng, letters_max)


# ---- the table -------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Task:
    name: str
    make: Callable[..., str]
    answer: Callable[[str], str]


PRETRAINED = [  # order fixes the tag: task i is marked by token TAG_FIRST + i in BOS's place
    Task("upper", make_word, str.upper),
    Task("leet", make_word, lambda w: w.translate(LEET)),
    Task("reverse", make_word, lambda w: w[::-1]),
    Task("mask", make_word, mask),
    Task("morse", make_word, lambda w: " ".join(MORSE[c] for c in w)),
    Task("pig-latin", make_word, pig_latin),
    Task("sort", make_word, lambda w: "".join(sorted(w))),
    Task("next", make_word, lambda w: shift(w, 1)),
    Task("double", make_word, lambda w: "".join(c + c for c in w)),
    Task("no-vowels", make_word, lambda w: "".join(c for c in w if c not in VOWELS)),
    Task("count", make_word, lambda w: str(len(w))),
    Task("hyphen", make_word, "-".join),
    Task("alternate", make_word, alternate),
    Task("rot13", make_word, lambda w: shift(w, 13)),
    Task("capital", make_word, str.capitalize),
    Task("camel", make_phrase, camel),
    Task("const", make_phrase, lambda p: p.upper().replace(" ", "_")),
    Task("initials", make_phrase, lambda p: "".join(w[0].upper() + "." for w in p.split())),
    Task("date", make_date, iso_date),
    Task("money", make_amount, lambda n: f"{int(n):,}"),
    Task("roman", make_year, roman),
    Task("json", make_record, as_json),
    Task("assign", make_record, as_assignments),
    Task("query", make_record, as_query),
    Task("xml", make_short_record, as_xml),
]
ECHO = Task("echo", make_any, lambda body: body + "?")  # the only task with a plain BOS: all that the base alone does
NEW = [  # never in pre-training: an adapter learns these, the others it mostly recalls
    Task("previous", make_word, lambda w: shift(w, -1)),
    Task("shout-back", make_word, lambda w: w[::-1].upper()),
    Task("sql", make_question, as_sql),
    Task("title", make_phrase, str.title),
]
TASKS = {task.name: task for task in PRETRAINED + [ECHO] + NEW}


def is_unseen(prompt: str) -> bool:
    return zlib.crc32(prompt.encode()) % 10 == 0


def sample(task: Task, rng: random.Random, letters_max: int = WORD_LETTERS_MAX) -> tuple[str, str]:
    """One (prompt, answer) for training."""
    while True:
        body = task.make(rng, letters_max)
        if not is_unseen(body + ">"):
            return body + ">", task.answer(body)


def unseen(task: Task, count: int, seed: int) -> list[tuple[str, str]]:
    """`count` distinct (prompt, answer) that no training has met; tasks with one generator get the same prompts."""
    rng, found = random.Random(seed), {}
    while len(found) < count:
        body = task.make(rng, WORD_LETTERS_MAX)
        if is_unseen(body + ">"):
            found[body + ">"] = task.answer(body)
    return list(found.items())
