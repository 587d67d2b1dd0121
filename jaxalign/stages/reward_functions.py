"""Reward functions in plain Python: loaded from a user's file, checked, and called with samples.

def reward(prompts, responses, **columns):
    return [float(answer in response) for answer, response in zip(columns["answer"], responses)]
"""

import copy
import inspect
import math
import numbers
import re
import sys
import traceback
import types
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxalign.errors import StepRefused, UserError

FUNCTION = re.compile(r"(?P<file>.+\.py)(?::(?P<name>\w+))?")
WANTED = "wanted def NAME(prompts, responses, **columns), which returns a number for each response"
OURS = ("prompts", "responses")
LARGEST = float(np.finfo(np.float32).max)


def is_function(judge: Any) -> bool:
    """Whether that is a Python function, and no model."""
    return inspect.isfunction(judge) or inspect.ismethod(judge)


def load_function(source: str, option: str, modules: dict[str, dict[str, Any]]) -> Callable:
    """The function that `FILE.py:NAME` names, or the one named `reward` in `FILE.py`.

    Args:
      source: what the user gave.
      option: that gave it, for the error message.
      modules: contents of the files that were read before; a new one is added.

    Raises:
      UserError: no such file, it does not run, or the function is not one that can be called.
    """
    parts = FUNCTION.fullmatch(source)
    assert parts is not None, source
    file, name = parts["file"], parts["name"] or "reward"
    if file not in modules:
        modules[file] = _contents(Path(file), option)
    found = modules[file].get(name)
    if found is None:
        named = [key for key, value in modules[file].items() if inspect.isfunction(value)]
        there = ", ".join(named) or "none"
        raise UserError(f"--{option} {source}: {file} has no function {name}; it has {there}")
    check_function(found, f"--{option} {source}")
    return found


def _contents(file: Path, option: str) -> dict[str, Any]:
    """Run a user's file as a module of its own; no bytecode is kept, so it is always the latest."""
    if not file.is_file():
        raise UserError(f"--{option} {file}: no such file")
    module = types.ModuleType(f"{file.stem}_{zlib.crc32(str(file).encode()):08x}")
    module.__file__ = str(file)
    sys.modules[module.__name__] = module  # where dataclasses and pickle look it up
    try:
        exec(compile(file.read_bytes(), str(file), "exec"), module.__dict__)
    except Exception as error:
        raise UserError(f"--{option} {file} does not run: {told(error, str(file))}") from None
    return vars(module)


def check_function(function: Any, given: str) -> None:
    """It is a plain function that can be called with what we have.

    Raises:
      UserError: it is something else, or takes other arguments.
    """
    if not is_function(function):
        raise UserError(f"{given} is a {type(function).__name__}, no function; {WANTED}")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise UserError(f"{given} is an async function; write it with def instead of async def")
    parameters = inspect.signature(function).parameters.values()
    unnamed = [p.name for p in parameters if p.kind is p.POSITIONAL_ONLY]
    if unnamed or not takes(function, "responses"):
        raise UserError(f"{given} takes {inspect.signature(function)}; {WANTED}")


def takes(function: Callable, column: str) -> bool:
    """Whether the function has a parameter for it."""
    parameters = inspect.signature(function).parameters.values()
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return any(
        p.kind is p.VAR_KEYWORD or (p.name == column and p.kind in named) for p in parameters
    )


def check_columns(function: Callable, rows: Sequence[Mapping[str, Any]], where: str) -> None:
    """Every row has what the function needs by name, and nothing has a name of ours.

    Args:
      function: a reward function.
      rows: the columns of all prompts.
      where: what holds them, for the error message.

    Raises:
      UserError: a parameter without default is no field of all rows, or a field is named as one of
        ours.
    """
    for name in OURS:
        if takes(function, name) and any(name in row for row in rows):
            raise UserError(
                f"{where} has a field {name!r}, a name that {place(function)} gets the sampled "
                f"{name} by; rename the field"
            )
    for p in inspect.signature(function).parameters.values():
        required = p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        lacking = sum(p.name not in row for row in rows)
        if required and p.name not in OURS and lacking:
            some = f"{lacking} of {len(rows)} rows of {where} lack"
            share = f"no row of {where} has" if lacking == len(rows) else some
            raise UserError(
                f"{place(function)} needs the field {p.name!r}, which {share}; "
                "add it, or give the parameter a default"
            )


def function_scores(
    function: Callable, prompts: Sequence, responses: Sequence[str], columns: Mapping[str, list]
) -> np.ndarray:
    """`[B]` what the function says of the samples, NaN where it returned None or NaN.

    It gets copies: what it does to them changes no later round.

    Args:
      function: a reward function.
      prompts: `[B]` texts or conversations.
      responses: `[B]` texts.
      columns: `[B]` each, the fields that it takes.

    Raises:
      StepRefused: it raised, or returned something else than a finite number, None or NaN for
        each response.
    """
    given = {"prompts": list(prompts)} if takes(function, "prompts") else {}
    given |= {"responses": list(responses), **columns}
    try:
        returned = function(**copy.deepcopy(given))
    except Exception as error:
        file = inspect.unwrap(function).__code__.co_filename
        raise _refused(function, f"raised {told(error, file)}") from None
    count = len(responses)
    values = np.asarray(returned).tolist() if hasattr(returned, "__array__") else returned
    if not isinstance(values, list | tuple):
        raise _refused(function, f"returned {_shown(returned)}, wanted a list of {count} numbers")
    if len(values) != count:
        raise _refused(function, f"returned {len(values)} scores for {count} responses")
    return np.array([_score(function, i, value) for i, value in enumerate(values)])


def _score(function: Callable, number: int, value: Any) -> float:
    """One score in the range of float32, or NaN."""
    if value is None:
        return math.nan
    plain = value.item() if hasattr(value, "item") and np.ndim(value) == 0 else value
    if not isinstance(plain, numbers.Real):
        wanted = "wanted a number, or None where it cannot judge"
        raise _refused(function, f"returned {_shown(value)} for response {number}, {wanted}")
    try:
        score = float(plain)
    except OverflowError:
        score = math.inf
    if abs(score) > LARGEST:
        raise _refused(
            function, f"returned {_shown(value)} for response {number}, wanted a finite number"
        )
    return score


def _refused(function: Callable, what: str) -> StepRefused:
    return StepRefused(f"{place(function)} {what}; mend it and run the same command again to go on")


def place(function: Callable) -> str:
    """File and name of a function."""
    code = inspect.unwrap(function).__code__
    return f"{code.co_filename}: {code.co_name}"


def told(error: Exception, file: str) -> str:
    """An exception of the user's file in a line, with the last line of that file that it passed."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    where = f" (line {lines[-1]})" if lines else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{where}"


def _shown(value: Any) -> str:
    return f"{str(value)[:40]!r} ({type(value).__name__})"
