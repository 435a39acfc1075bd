"""Makes golden/strftime.golden.json: what Python's strftime writes for every directive, at moments that are edges of something.

    /work/venv/bin/python test/tokenizer/make-strftime-golden.py
"""

import datetime
import json
import os
import string
import time
from pathlib import Path

os.environ["TZ"] = "Europe/Berlin"
time.tzset()

# Local time as transformers has it: `datetime.now()` knows no zone.
MOMENTS = {
    "midnight": (2024, 7, 1, 0, 0, 0),
    "noon": (2024, 7, 1, 12, 0, 0),
    "just before noon": (2024, 7, 1, 11, 59, 59),
    "one o'clock in the afternoon": (2025, 1, 2, 13, 4, 5),
    "the first hour": (2025, 3, 9, 0, 30, 9),
    "leap day": (2024, 2, 29, 23, 59, 59),
    "the day after the 28th without a leap day": (2023, 3, 1, 6, 7, 8),
    "the last second of a leap year": (2024, 12, 31, 23, 59, 59),
    "the first second of a year that begins on a Sunday": (2023, 1, 1, 0, 0, 0),
    "a Friday that belongs to the 53rd week of the year before": (2021, 1, 1, 10, 0, 0),
    "a Monday that belongs to the first week of the year after": (2024, 12, 30, 9, 9, 9),
    "the first second of summer time": (2025, 3, 30, 3, 0, 0),
    "the day after summer time began": (2025, 3, 31, 0, 0, 0),
    "an hour that is there twice": (2025, 10, 26, 2, 30, 0),
    "the day after summer time ended": (2025, 10, 27, 23, 0, 0),
    "a year of two digits in short": (2009, 9, 9, 9, 9, 9),
}
# `_`, `0`, `^` and `#` are glibc's flags, as `-` is; `E` and `O` ask for other calendars and digits.
DIRECTIVES = [f"%{flag}{letter}" for flag in ("", "-", "_", "0", "^", "#", "E", "O") for letter in string.ascii_letters + "%"]
TEXTS = ["%d %b %Y", "Today is %A, %-d %B %Y.", "%Y-%m-%dT%H:%M:%S", "%%d %%%d%%", "100%% é 🦊 %d\n%H", "", "no directive", "%I:%M %p on %D"]


def main():
    moments = {}
    for name, moment in MOMENTS.items():
        now = datetime.datetime(*moment)
        moments[name] = {"moment": moment, "texts": [now.strftime(text) for text in DIRECTIVES + TEXTS]}
    value = {"zone": os.environ["TZ"], "directives": DIRECTIVES, "texts": TEXTS, "moments": moments}
    path = Path(__file__).parent / "golden" / "strftime.golden.json"
    path.write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n")


main()
