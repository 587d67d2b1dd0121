"""Reward functions in plain Python: what they return, raise and take; files that do not run."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.hostile.base import Base, command
from benchmarks.hostile.judge import Ending, Fault, either, refused, worked
from benchmarks.hostile.trial import Room, Trial

KIND = "rewards"
HEAD = "import functools, math, sys, os, fractions, decimal\nimport numpy as np\n"
RETURNS = {
    "none": "None",
    "number": "3",
    "text": "'abcd'",
    "dict": "{'a': 1}",
    "short": "[1.0]",
    "long": "[1.0] * 99",
    "empty": "[]",
    "texts": "['1'] * len(responses)",
    "nested": "[[1.0]] * len(responses)",
    "complex": "[1j] * len(responses)",
    "infinity": "[math.inf] * len(responses)",
    "minus_infinity": "[-math.inf] * len(responses)",
    "digits": "[10 ** 400] * len(responses)",
    "near_largest": "[3e38] * len(responses)",
    "one_near_largest": "[3e38, -3e38] * (len(responses) // 2)",
    "object": "[object()] * len(responses)",
    "matrix": "np.ones((len(responses), 2))",
    "scalar_array": "np.float32(1)",
    "texts_array": "np.array(['a'] * len(responses))",
    "all_none": "[None] * len(responses)",
    "all_nan": "[math.nan] * len(responses)",
    "set": "{1.0, 2.0}",
    "coroutine": "(lambda: (yield))()",
}
GOOD = {
    "generator": "(1.0 for _ in responses)",
    "ints": "[1, 2] * (len(responses) // 2)",
    "bools": "[True, False] * (len(responses) // 2)",
    "array": "np.arange(len(responses), dtype=np.float32)",
    "tuple": "tuple(float(i) for i in range(len(responses)))",
    "fractions": "[fractions.Fraction(i, 3) for i in range(len(responses))]",
    "numpy_numbers": "[np.float16(i) for i in range(len(responses))]",
    "some_none": "[None if i % 2 else 1.0 for i in range(len(responses))]",
    "denormal": "[1e-320 * i for i in range(len(responses))]",
}
RAISES = {
    "value_error": "raise ValueError('no')",
    "long_message": "raise ValueError('x' * 99999)",
    "lines": "raise ValueError('a\\nb\\nc')",
    "escape": "raise ValueError('\\x1b[31m\\0')",
    "no_message": "raise RuntimeError",
    "assertion": "assert False",
    "name": "return no_such_name",
    "division": "return [1 / 0]",
    "recursion": "return reward(prompts, responses)",
    "exit": "sys.exit(0)",
    "exit_text": "sys.exit('bye')",
    "system_exit": "raise SystemExit",
    "stop_iteration": "raise StopIteration",
    "generator_exit": "raise GeneratorExit",
    "group": "raise ExceptionGroup('two', [ValueError('a'), ValueError('b')])",
    "base": "raise type('Mine', (BaseException,), {})('mine')",
    "broken_message": "raise type('E', (Exception,), {'__str__': lambda self: 1 / 0})()",
    "memory": "raise MemoryError",
    "unicode": "'\\ud800'.encode()",
    "user_error": "from jaxalign.errors import UserError; raise UserError('a\\nb')",
    "timeout": "raise TimeoutError",
}
FILES = {
    "empty": "",
    "syntax": "def reward(:\n",
    "indentation": "def reward(prompts, responses):\nreturn 1\n",
    "import": "import no_such_module\n",
    "raises": "raise ValueError('at import')\n",
    "exits": "import sys\nsys.exit(0)\n",
    "exits_three": "raise SystemExit(3)\n",
    "no_function": "rewards = 3\n",
    "number": "reward = 3\n",
    "none": "reward = None\n",
    "class": "class reward:\n    pass\n",
    "async": "async def reward(prompts, responses):\n    return []\n",
    "generator": "def reward(prompts, responses):\n    yield 1.0\n",
    "no_arguments": "def reward():\n    return []\n",
    "positional_only": "def reward(a, b, /):\n    return []\n",
    "other_names": "def reward(x, y):\n    return []\n",
    "needs_column": "def reward(prompts, responses, answer):\n    return [1.0] * len(responses)\n",
    "builtin": "reward = print\n",
    "module": "import math as reward\n",
    "zero_byte": "def reward(prompts, responses):\n    return []\n\0",
    "latin1": b"# \xe4\ndef reward(prompts, responses):\n    return []\n",
    "deep": "reward = " + "(" * 5000 + ")" * 5000,
}
SHAPES = {
    "generator_of_scores": "def reward(prompts, responses, **c):\n"
                           "    return (1.0 for _ in responses)\n",
    "partial": "def score(prompts, responses, low):\n    return [low] * len(responses)\n"
               "reward = functools.partial(score, low=1.0)\n",
    "instance": "class Judge:\n    def __call__(self, prompts, responses, **columns):\n"
                "        return [1.0] * len(responses)\nreward = Judge()\n",
    "method": "class Judge:\n    def score(self, prompts, responses, **columns):\n"
              "        return [1.0] * len(responses)\nreward = Judge().score\n",
    "lambda": "reward = lambda prompts, responses, **c: [1.0] * len(responses)\n",
    "decorated": "def wrap(f):\n    @functools.wraps(f)\n    def g(*a, **k):\n"
                 "        return f(*a, **k)\n    return g\n@wrap\n"
                 "def reward(prompts, responses, **c):\n    return [1.0] * len(responses)\n",
    "cached": "@functools.cache\ndef one():\n    return 1.0\n"
              "def reward(prompts, responses, **c):\n    return [one()] * len(responses)\n",
    "completions": "def reward(prompts, completions, **c):\n    return [1.0] * len(completions)\n",
    "changes_its_arguments": "def reward(prompts, responses, **c):\n    n = len(responses)\n"
                             "    responses.clear()\n    prompts.clear()\n    return [1.0] * n\n",
    "prints": "def reward(prompts, responses, **c):\n    print('\\x1b[2J')\n"
              "    return [1.0] * len(responses)\n",
}  # fmt: skip


def trials(base: Base, seed: int) -> Iterator[Trial]:
    """Values, exceptions, files and shapes of functions."""
    for name, value in RETURNS.items():
        yield _trial(f"returns_{name}", bad, body=f"return {value}")
    for name, value in GOOD.items():
        yield _trial(f"returns_good_{name}", good, body=f"return {value}")
    for name, body in RAISES.items():
        yield _trial(f"raises_{name}", bad, body=body)
        yield _trial(f"raises_later_{name}", raises_later, body=body)
    for name, content in FILES.items():
        yield _trial(f"file_{name}", bad_file, content=content)
    for name, content in SHAPES.items():
        yield _trial(f"shape_{name}", shape, content=HEAD + content)
    for name, source in SOURCES.items():
        yield _trial(f"source_{name}", bad_source, source=source)


SOURCES = {
    "missing": "no.py",
    "missing_name": "no.py:reward",
    "directory": "folder.py",
    "fifo": "pipe.py",
    "endless": "endless.py",
    "no_name": "rewards.py:",
    "other_name": "rewards.py:rewardd",
    "dotted": "rewards.py:a.b",
    "dunder": "rewards.py:__import__",
    "nothing": "",
    "zero_character": "a\0.py",
    "long": "x" * 5000 + ".py",
}


def _trial(name: str, act: Callable[..., str], /, **settings: Any) -> Trial:
    return Trial(kind=KIND, name=name, act=functools.partial(act, **settings))


def rewarded(room: Room, source: str, *more: str) -> Ending:
    """What `grpo` does with that judge."""
    return room.call(*command("grpo", room.base, reward=source), *more)


def with_body(room: Room, body: str) -> str:
    """A file whose function has that body."""
    text = f"{HEAD}def reward(prompts, responses, **columns):\n    {body}\n"
    return room.write("rewards.py", text)


def bad(room: Room, *, body: str) -> str:
    """A function that fails or returns no scores: a line, and no model."""
    done = refused(rewarded(room, with_body(room, body)), "rewards.py", "reward")
    return no_model(room, done)


def no_model(room: Room, done: str) -> str:
    """No model was saved.

    Raises:
      Fault: one was.
    """
    if (room.path / "run" / "model").exists():
        raise Fault("silent", "a model was saved all the same")
    return done


def raises_later(room: Room, *, body: str) -> str:
    """It fails in the second round: the first is kept, and the mended function goes on."""
    counted = f"calls.append(1)\n    if len(calls) > 1:\n        {body}\n    "
    text = f"{HEAD}calls = []\ndef reward(prompts, responses, **columns):\n    {counted}"
    fine = "return [float(i) for i in range(len(responses))]\n"
    source = room.write("rewards.py", text + fine)
    done = refused(rewarded(room, source), "rewards.py", "reward")
    no_model(room, done)
    lines = [1 for line in (room.path / "run" / "metrics.jsonl").open() if line.strip()]
    if len(lines) != 1:
        raise Fault("lost", f"{len(lines)} rounds in the metrics, the first was whole")
    room.write("rewards.py", f"{HEAD}def reward(prompts, responses, **columns):\n    {fine}")
    ending = rewarded(room, source)
    if ending.status:
        raise Fault("lost", f"the mended function does not go on: {ending.err[-300:]}")
    return done


def good(room: Room, *, body: str) -> str:
    """A function that returns scores."""
    return worked(rewarded(room, with_body(room, body)))


def bad_file(room: Room, *, content: str | bytes) -> str:
    """A file that does not run, or holds no such function."""
    done = refused(rewarded(room, room.write("rewards.py", content)), "rewards.py", "reward")
    return no_model(room, done)


def shape(room: Room, *, content: str) -> str:
    """A thing that can be called with prompts and responses, or a line that says what it lacks."""
    return either(rewarded(room, room.write("rewards.py", content)), lambda: None, "rewards.py")


def bad_source(room: Room, *, source: str) -> str:
    """No file, or no name in it."""
    import os

    with_body(room, "return [1.0] * len(responses)")
    (room.path / "folder.py").mkdir()
    os.mkfifo(room.path / "pipe.py")
    (room.path / "endless.py").symlink_to("/dev/zero")
    return refused(rewarded(room, source), source[:20].strip("\0") or "reward", "reward")
