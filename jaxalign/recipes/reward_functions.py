"""Reward functions in plain Python: loaded from a user's file, checked, and called with samples.

def reward(prompts, responses, **columns):
    return [float(answer in response) for answer, response in zip(columns["answer"], responses)]

Anything that can be called with those names will do: a function, a method, `functools.partial`, an
object with `__call__`. `completions` is TRL's name for the responses: who takes it gets them in
TRL's shape, where answers to conversations are `[{"role": "assistant", "content": text}]`.
"""

import contextlib
import copy
import decimal
import functools
import inspect
import itertools
import math
import numbers
import re
import sys
import traceback
import types
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxalign.config.packaged import packaged
from jaxalign.errors import StepRefused, UserError
from jaxalign.numerics.bounds import LARGEST
from jaxalign.system.files import SHOWN, read_bytes

FUNCTION = re.compile(r"(?P<file>.+\.py)(?::(?P<name>\w+))?")
WANTED = (
    "wanted def NAME(prompts, responses, **columns), which returns a number for each response "
    "(`completions` instead of `responses` gets them as TRL gives them)"
)
WITHIN = f"a number between {-LARGEST:,.0f} and {LARGEST:,.0f}"
OURS = ("prompts", "responses", "completions")
NO_LIST = (str, bytes, bytearray, Mapping, set, frozenset)  # iterable, but no scores in order
Parameters = Mapping[str, inspect.Parameter]


def is_function(judge: Any) -> bool:
    """Whether a value is a reward function: callable, and neither a model nor a class."""
    return callable(judge) and not inspect.isclass(judge)


def load_function(source: str, option: str, modules: dict[str, dict[str, Any]]) -> Callable:
    """The function that `FILE.py:NAME` names, or the one named `reward` in `FILE.py`.

    Args:
      source: what the user gave.
      option: that gave it, for the error message.
      modules: contents of the files that were read before; a new one is added.

    Raises:
      UserError: no such file, it does not run, or the function is not one that can be called.
    """
    file, name = file_and_name(source)
    if file not in modules:
        modules[file] = _contents(packaged(Path(file)), option)
    function = modules[file].get(name)
    if function is None:
        named = [
            key
            for key, value in modules[file].items()
            if is_function(value) and not key.startswith("__")
        ]
        there = ", ".join(named) or "none"
        raise UserError(f"--{option} {source}: {file} has no function {name}; it has {there}")
    check_function(function, f"--{option} {source}")
    return function


def file_and_name(source: str) -> tuple[str, str]:
    """The file of `FILE.py:NAME` and the name in it, which is `reward` unless given."""
    parts = FUNCTION.fullmatch(source)
    assert parts is not None, source
    return parts["file"], parts["name"] or "reward"


def _contents(file: Path, option: str) -> dict[str, Any]:
    """Namespace of a user's file, run as a module of its own without cached bytecode."""
    try:
        text = read_bytes(file)
    except UserError as error:
        raise UserError(f"--{option}: {error}") from None
    module = types.ModuleType(f"{file.stem}_{zlib.crc32(str(file).encode()):08x}")
    module.__file__ = str(file)
    sys.modules[module.__name__] = module  # where dataclasses and pickle look it up
    try:
        with _undisturbed():
            exec(compile(text, str(file), "exec"), module.__dict__)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # `sys.exit()` too: the file is to be read, not to end the run
        raise UserError(f"--{option} {file} does not run: {error_line(error, str(file))}") from None
    return vars(module)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Context that restores the working directory and jax's precision after a user's code."""
    x64 = jax.config.read("jax_enable_x64")
    try:
        with contextlib.chdir("."):
            yield
    finally:
        changed = jax.config.read("jax_enable_x64") != x64
        jax.config.update("jax_enable_x64", x64)
    if changed:
        raise ValueError("jax_enable_x64 is training's too; use `with jax.enable_x64(True):`")


def check_function(function: Any, given: str) -> None:
    """Check that a function can be called with prompts, responses and columns.

    Raises:
      UserError: it is something else, or takes other arguments.
    """
    if inspect.isclass(function):
        raise UserError(f"{given} is a class; give an object of it that can be called: x = NAME()")
    if not is_function(function):
        raise UserError(f"{given} is a {type(function).__name__}, no function; {WANTED}")
    calls = (function, type(function).__call__)
    if any(map(inspect.iscoroutinefunction, calls)) or any(map(inspect.isasyncgenfunction, calls)):
        raise UserError(f"{given} is an async function; write it with def instead of async def")
    try:
        parameters = _parameters(function)
    except (TypeError, ValueError):  # built-in ones
        raise UserError(f"{given} does not say which arguments it takes; {WANTED}") from None
    unnamed = [
        p.name for p in parameters.values() if p.kind is p.POSITIONAL_ONLY and p.default is p.empty
    ]
    if unnamed or not (takes(function, "responses") or takes(function, "completions")):
        raise UserError(f"{given} takes {inspect.signature(function)}; {WANTED}")


def _parameters(function: Callable) -> Parameters:
    """Parameters that a call may name: of a decorator's `**arguments`, those of the function
    within.
    """
    try:
        own = inspect.signature(function, follow_wrapped=False).parameters
    except ValueError:  # of `functools.cache`, written in C
        return inspect.signature(function).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in own.values()):
        return own
    passed_on = inspect.signature(function).parameters
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    named = {name: p for name, p in own.items() if p.kind not in variadic}
    return {**named, **passed_on}


def _bound(function: Any) -> set[str]:
    """Names that `functools.partial` has given a value already, which no column replaces."""
    names: set[str] = set()
    while isinstance(function, functools.partial):
        names |= function.keywords.keys()
        function = function.func
    return names


def takes(function: Callable, name: str) -> bool:
    """Whether a function is called with a column; with `responses`, `**columns` lacks
    `completions`.
    """
    parameters = _parameters(function)
    p = parameters.get(name)
    if name in _bound(function):
        return False
    if p is not None and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY):
        return True
    if name == "completions" and "responses" in parameters:
        return False
    return any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def check_columns(function: Callable, rows: Sequence[Mapping[str, Any]], where: str) -> None:
    """Check that rows have the columns a function needs, and none with a name that is taken.

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
    for p in _parameters(function).values():
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
    """Scores `[B]` of a function for samples, NaN where it returned None or NaN.

    It gets copies: what it does to them changes no later iteration.

    Args:
      function: a reward function.
      prompts: `[B]` texts or conversations.
      responses: `[B]` texts.
      columns: `[B]` each, the fields that it takes.

    Raises:
      StepRefused: it raised (`SystemExit` too; Ctrl-C alone goes on), or returned something else
        than a number of at most `LARGEST`, None or NaN for each response.
    """
    ours = {
        "prompts": list(prompts),
        "responses": list(responses),
        "completions": [_message(*each) for each in itertools.zip_longest(prompts, responses)],
    }
    arguments = {name: value for name, value in ours.items() if takes(function, name)}
    arguments.update(columns)
    count = len(responses)
    try:
        with _undisturbed():
            values = _listed(function(**copy.deepcopy(arguments)), count)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise _refused(function, f"raised {error_line(error, _file(function))}") from None
    if not isinstance(values, list):
        raise _refused(function, f"returned {_shown(values)}, wanted a list of {count} numbers")
    if len(values) != count:
        more = "more than " * (len(values) > count)
        number = min(len(values), count) if more else len(values)
        raise _refused(function, f"returned {more}{number} scores for {count} responses")
    return np.array([_score(function, i, value) for i, value in enumerate(values)], np.float64)


def _message(prompt: Any, response: str) -> Any:
    """A response of the same type as its prompt: text, or a list of one message."""
    in_messages = isinstance(prompt, list)
    return [{"role": "assistant", "content": response}] if in_messages else response


def _listed(returned: Any, count: int) -> Any:
    """Scores of an array, a sequence or a generator as a list, at most one too many; other values
    as they are.
    """
    if hasattr(returned, "tolist"):  # None where a masked array has nothing
        returned = returned.tolist()
    elif hasattr(returned, "__array__"):
        returned = np.asarray(returned).tolist()
    if isinstance(returned, NO_LIST) or not isinstance(returned, Iterable):
        return returned
    return list(itertools.islice(returned, count + 1))


def _score(function: Callable, number: int, value: Any) -> float:
    """A score as a float, or NaN."""
    if value is None:
        return math.nan
    wanted = "a number, or None where it cannot judge"
    try:
        plain = value.item() if hasattr(value, "item") and np.ndim(value) == 0 else value
        if isinstance(plain, numbers.Real | decimal.Decimal):
            score = float(plain)
            if not abs(score) > LARGEST:
                return score
            wanted = WITHIN
    except OverflowError:  # of integers
        wanted = WITHIN
    except Exception:  # of classes of the user's, and signalling NaN
        pass
    shown = _shown(value)
    raise _refused(function, f"returned {shown} for response {number}, wanted {wanted}")


def _refused(function: Callable, what: str) -> StepRefused:
    return StepRefused(f"{place(function)} {what}; mend it and run the same command again to go on")


def _plain(function: Any) -> Any:
    """The function within partials, decorators and objects with `__call__`."""
    while not inspect.isbuiltin(function):
        if isinstance(function, functools.partial):
            function = function.func
        elif inspect.ismethod(function):
            function = function.__func__
        elif hasattr(function, "__wrapped__"):
            function = inspect.unwrap(function)
        elif inspect.isroutine(function):
            return function
        else:
            function = type(function).__call__
    return function


def _file(function: Callable) -> str:
    """File that defines a function, or the name of its module if that is written in C."""
    plain = _plain(function)
    if inspect.isfunction(plain):
        return plain.__code__.co_filename
    return getattr(plain, "__module__", None) or "a built-in function"


def place(function: Callable) -> str:
    """File and name of a function."""
    named: Any = function
    while isinstance(named, functools.partial):
        named = named.func
    if not inspect.isroutine(named) and not hasattr(named, "__wrapped__"):
        named = type(named)
    return f"{_file(function)}: {named.__name__}"


def error_line(error: BaseException, file: str) -> str:
    """An exception of a user's file on one line, with the last line of that file that it passed."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    where = f" (line {lines[-1]})" if lines else ""
    return f"{type(error).__name__}: {_text(error)[:SHOWN]}{where}"


def _text(value: Any) -> str:
    """`str` of a value, printable and on one line, also where a class raises there or a number is
    too long.
    """
    try:
        text = " ".join(str(value).split())
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return f"(no text: {type(error).__name__})"
    return "".join(c if c.isprintable() else "?" for c in text)


def _shown(value: Any) -> str:
    return f"{_text(value)[:40]!r} ({type(value).__name__})"
