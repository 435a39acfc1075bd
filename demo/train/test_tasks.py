"""python -m unittest test_tasks"""

import random
import unittest

from adapters import SHIPPED, SPECS
from tasks import ECHO, NEW, PRETRAINED, TASKS, is_unseen, sample, unseen
from tokenizer import CONTEXT_TOKENS

CASES = {
    "upper": ("orange", "ORANGE"), "leet": ("orange", "0r4ng3"), "reverse": ("orange", "egnaro"),
    "mask": ("orange", "o****e"), "morse": ("sos", "... --- ..."), "pig-latin": ("string", "ingstray"),
    "previous": ("orange", "nqzmfd"), "sort": ("orange", "aegnor"), "date": ("9 may 2024", "2024-05-09"),
    "money": ("1234567", "1,234,567"), "json": ("name is bob, age is 42", '{"name":"bob","age":42}'),
    "sql": ("get name, age of user where city is rome", "SELECT name, age FROM user WHERE city = 'rome';"),
    "shout-back": ("orange", "EGNARO"), "camel": ("max retry count", "maxRetryCount"),
    "const": ("max retry", "MAX_RETRY"), "title": ("max retry", "Max Retry"), "roman": ("1987", "MCMLXXXVII"),
    "xml": ("age is 4", "<age>4</age>"), "query": ("a is b, c is 4", "a=b&c=4"), "assign": ("a is b", "a = 'b';"),
    "initials": ("ada king", "A.K."), "rot13": ("abc", "nop"), "alternate": ("abc", "aBc"), "echo": ("abc", "abc?"),
}


class Tasks(unittest.TestCase):
    def test_each_answer_is_the_stated_one(self):
        for name, (body, wanted) in CASES.items():
            self.assertEqual(TASKS[name].answer(body), wanted, name)

    def test_every_adapter_has_a_task_and_a_case(self):
        for spec in SHIPPED:
            self.assertIn(spec.name, TASKS)
            self.assertIn(spec.name, CASES)

    def test_training_never_draws_an_unseen_prompt(self):
        rng = random.Random(7)
        for task in TASKS.values():
            self.assertFalse(any(is_unseen(sample(task, rng)[0]) for _ in range(300)), task.name)

    def test_unseen_cases_are_unseen_and_distinct(self):
        for spec in SPECS.values():
            cases = unseen(TASKS[spec.name], 200, seed=1)
            self.assertEqual(len({prompt for prompt, _ in cases}), 200)
            self.assertTrue(all(is_unseen(prompt) for prompt, _ in cases))

    def test_every_character_of_a_new_task_occurs_in_pre_training(self):
        rng = random.Random(7)
        known = {c for task in PRETRAINED + [ECHO] for _ in range(400) for c in "".join(sample(task, rng))}
        for task in NEW:
            self.assertLessEqual({c for _ in range(400) for c in "".join(sample(task, rng))}, known, task.name)

    def test_everything_fits_the_context(self):
        rng = random.Random(7)
        for task in TASKS.values():
            longest = max(len("".join(sample(task, rng))) + 2 for _ in range(500))
            self.assertLess(longest, CONTEXT_TOKENS // 2 + 32, task.name)


if __name__ == "__main__":
    unittest.main()
