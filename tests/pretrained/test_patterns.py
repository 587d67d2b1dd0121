"""Expressions of adapters: they match what `re` says, and none takes long."""

import random
import re
import time

import pytest

from jaxalign.errors import UserError
from jaxalign.pretrained.patterns import Patterns

MODULE = "model.layers.10.self_attn.q_proj"


def matches(pattern: str, text: str = MODULE) -> bool:
    return Patterns([pattern], "adapter_config.json").first(text) is not None


def expression(rng: random.Random, depth: int) -> str:
    """A random expression, with everything that is known."""
    kind = rng.randrange(9)
    if depth == 0 or kind < 3:
        return rng.choice(["a", "b", ".", "[ab]", "[^a]", r"\.", r"\w", "c"])
    inner = expression(rng, depth - 1)
    if kind < 5:
        return inner + expression(rng, depth - 1)
    if kind == 5:
        return f"({inner}|{expression(rng, depth - 1)})"
    if kind == 6:
        return f"(?:{inner})" + rng.choice(["*", "+", "?", "{2}", "{1,2}", "*?", "{0,}"])
    return rng.choice(["^", "$", r"\b"]) + inner


def test_matches_are_those_of_re():
    rng, found = random.Random(0), []
    for _ in range(3000):
        pattern, text = expression(rng, 4), "".join(rng.choices("abc.", k=rng.randrange(6)))
        expected = re.fullmatch(pattern, text) is not None
        assert matches(pattern, text) == expected, (pattern, text)
        found.append(expected)
    assert 200 < sum(found) < 2800


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("q_proj", True),
        ("self_attn.q_proj", True),
        (r"^model\.layers\.(0|10)\.self_attn.q_proj", True),
        (r"layers\.[0-9]+\..*(q|k)_proj", True),
        (r".*\.\d{1,}\.(?:self_attn|mlp).*?(?:q_proj|k_proj).*?", True),
        ("proj", False),
        ("model.layers.1.self_attn.q_proj", False),
    ],
)
def test_the_patterns_of_published_adapters(pattern, expected):
    """As PEFT asks: after any word of the module's name."""
    before = r"(.*\.)?"
    assert (re.match(f"{before}({pattern})$", MODULE) is not None) == expected
    found = Patterns([pattern], "adapter_config.json", before=before).first(MODULE)
    assert (found is not None) == expected


@pytest.mark.parametrize(
    "pattern",
    [
        "(([a-z_.0-9])+)+!",
        "(a|a)" * 60 + "!",
        "(.*)*" * 40 + "!",
        ".*" * 400 + "!",
        "(.?)" * 60 + "." * 60,
        "((.?){999}){999}!",
        "(.{1000}){1000}" * 10,
        "(" * 400 + "a" + ")*" * 400,
        "(?!(?!(?!(.*)*!)*)*)*!",
    ],
)
def test_no_pattern_takes_long(pattern):
    start = time.thread_time()  # of this thread: other work on the machine does not count
    try:
        patterns = Patterns([pattern], "adapter_config.json")
        for _ in range(20):
            patterns.first(MODULE)
    except UserError as error:
        assert str(error).startswith("adapter_config.json: ") and "\n" not in str(error)
    assert time.thread_time() < start + 10  # backtracking would take years


@pytest.mark.parametrize(
    "pattern",
    [r"\1", "a**", "*a", "[z-a]", "a{3,2}", "(a", "a)", "a)|(b", "{2}", "\\", "[a", "(?<=a)b",
     "(?!a)b", "a++", "(?>a)", "(a)(?(1)b)", "((.?){999}){999}", "a\ud800", "+" * 2000],
)  # fmt: skip
def test_what_takes_more_than_linear_time_is_one_line(pattern):
    with pytest.raises(UserError, match=r"^adapter_config.json: the pattern ") as error:
        matches(pattern, "ab")
    assert len(str(error.value)) < 500


def test_too_many_are_refused_before_they_are_compiled():
    with pytest.raises(UserError, match=r"^x\.json: alpha_pattern has 1,000,000 patterns; at most"):
        Patterns(map(str, range(10**6)), "x.json: alpha_pattern")
