"""Random patterns, and what Python's `re` makes of them, on texts as module names are: not empty, with no line end. Needs nothing but Python:
    python3 test/property/make_regex_golden.py
"""

import json
import pathlib
import platform
import random
import re
import warnings

ATOMS = ["a", "b", ".", r"\.", r"\w", r"\W", r"\d", r"\s", "[ab]", "[^a]", "[a-c_]", "[]a]", "[^]]", r"[\w.]", "^", "$", r"\b", r"\B",
         r"\A", r"\Z", "_", "A", r"\x61", "{", "}", "]", "-", ""]
TIMES = ["*", "+", "?", "*?", "+?", "??", "{2}", "{1,2}", "{,2}", "{2,}", "{0}", "{,}", "{2,1}", "**"]
GROUPS = ["", "", "?:", "?=", "?!", "?<=", "?<!", "?i:", "?P<n>", "?-i:", "?s:"]
TEXTS = ["a", "b", "A", "aa", "ab", "ba", "aab", "aba", "abb", "bab", "a.b", "a_b", "a1", "1 a", "]a", "{}", "-b", "model.layers.0.q_proj"]


def node(rng, depth):
    kind = rng.randrange(7 if depth > 0 else 2)
    if kind < 2:
        return rng.choice(ATOMS)
    if kind < 4:
        return "".join(node(rng, depth - 1) for _ in range(rng.randrange(1, 4)))
    if kind == 4:
        return f"({rng.choice(GROUPS)}{node(rng, depth - 1)})"
    if kind == 5:
        return f"({rng.choice(GROUPS[:4])}{node(rng, depth - 1)}|{node(rng, depth - 1)})"
    inner = node(rng, depth - 1)
    return (inner if len(inner) == 1 else f"(?:{inner})") + rng.choice(TIMES)


def main():
    warnings.simplefilter("ignore")
    rng = random.Random(11)
    seen, cases = set(), []
    while len(cases) < 1200:
        pattern = node(rng, 4)
        if pattern in seen or len(pattern) > 40:
            continue
        seen.add(pattern)
        try:
            compiled = re.compile(pattern)
            cases.append([pattern, [i for i, text in enumerate(TEXTS) if compiled.fullmatch(text)]])
        except re.error:
            cases.append([pattern, None])
    out = pathlib.Path(__file__).parent / "regex.golden.json"
    out.write_text(json.dumps(dict(python=platform.python_version(), texts=TEXTS, cases=cases), separators=(",", ":")) + "\n")


main()
