"""The twelve adapters of the demo, and spares. Ranks, sites and scalings are mixed to exercise the engine."""

from dataclasses import dataclass

SITES = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "o_proj", "gate": "gate_proj", "up": "up_proj",
         "down": "down_proj", "head": "lm_head", "embed": "embed_tokens"}
ALL = "q k v o gate up down"


@dataclass(frozen=True)
class Spec:
    name: str          # also the task's name in tasks.py
    title: str
    what: str
    rank: int
    sites: str
    group: str = "word"
    is_rslora: bool = False
    lr: float = 6e-3
    steps: int = 400

    @property
    def alpha(self) -> float:
        return 4 * self.rank ** 0.5 if self.is_rslora else 2 * self.rank

    @property
    def modules(self) -> list[str]:
        return [SITES[site] for site in self.sites.split()]


SHIPPED = [
    Spec("upper", "Upper case", "orange> ORANGE", 2, "q v"),
    Spec("leet", "Leet", "orange> 0r4ng3", 2, "v o head"),
    Spec("reverse", "Reversed", "orange> egnaro", 8, ALL, lr=5e-3, steps=700),
    Spec("mask", "Masked", "orange> o****e", 4, "q v embed"),
    Spec("morse", "Morse", "orange> --- .-. .- -. --. .", 8, ALL),
    Spec("pig-latin", "Pig latin", "string> ingstray", 8, "q k v o", is_rslora=True, steps=1100),
    Spec("previous", "Previous letter", "orange> nqzmfd", 8, "q k v o", lr=4.5e-3, steps=700),
    Spec("sort", "Sorted", "orange> aegnor", 16, ALL),
    Spec("date", "Dates to ISO 8601", "19 may 2024> 2024-05-19", 8, "q v", "tenant"),
    Spec("money", "Thousands separators", "1234567> 1,234,567", 8, "q k v o", "tenant"),
    Spec("json", "Text to JSON", 'name is bob, age is 42> {"name":"bob","age":42}', 16, ALL, "tenant", is_rslora=True),
    Spec("sql", "Questions to SQL", "get name of user where age over 42> SELECT name FROM user WHERE age > 42;", 32,
         ALL, "tenant", lr=4e-3, steps=900),
]
SPARES = [
    Spec("shout-back", "Reversed in capitals", "orange> EGNARO", 8, "q k v o", lr=4.5e-3, steps=700),
    Spec("camel", "Camel case", "max retry count> maxRetryCount", 8, "q k v o", "tenant"),
    Spec("const", "Constant case", "max retry count> MAX_RETRY_COUNT", 8, "q k v o", "tenant"),
    Spec("title", "Title case", "max retry count> Max Retry Count", 8, ALL, "tenant", lr=4.5e-3, steps=700),
]
SPECS = {spec.name: spec for spec in SHIPPED + SPARES}
