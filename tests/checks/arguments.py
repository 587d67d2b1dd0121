"""What every public function refuses, and by which name: shapes, types of flags, ranges."""

import contextlib
import functools
import inspect
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.cases.case import cast
from tests.checks.applies import to_those

NUMBER = r"(-?\d+(?:\.\d+)?)"
FROM = rf"(?<!advantages of )(above|at least) {NUMBER}(?! \+)"
WITHIN = rf"in ([\[(]){NUMBER}, {NUMBER}([\])])(?! in the paper)"
STATED = re.compile(f"{FROM}|{WITHIN}")


def flags_of(case) -> list[str]:
    """The arguments that are drawn as booleans."""
    return [n for n, x in case.arguments().items() if getattr(x, "dtype", None) == np.bool_]


def descriptions(function) -> dict[str, str]:
    """What the docstring says of each argument."""
    _, _, text = inspect.unwrap(function).__doc__.partition("    Args:\n")
    text, _, _ = text.partition("\n\n    ")
    entries = re.findall(r"^      (\w[\w, ]*): (.*?)(?=\n      \w|\Z)", text, re.M | re.S)
    return {name: " ".join(said.split()) for names, said in entries for name in names.split(", ")}


def outside(said: str) -> list[float]:
    """Numbers outside the range that a docstring states, the last far off; none without a range."""
    found = STATED.search(said)
    if not found:
        return []
    word, least, opening, start, end, closing = found.groups()
    if word:
        return [float(least) if word == "above" else float(least) - 1, math.nan, -math.inf]
    below = float(start) if opening == "(" else math.nextafter(float(start), -1)
    beyond = float(end) if closing == ")" else math.nextafter(float(end), 2)
    return [below, beyond, math.nan, float(end) + 1]


def stated(case) -> dict[str, list[float]]:
    """Hyper-parameters whose range the docstring states, with numbers outside it."""
    parameters = inspect.signature(case.function).parameters
    found = {
        name: outside(said)
        for name, said in descriptions(case.function).items()
        if name in parameters and parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
    }
    return {name: numbers for name, numbers in found.items() if numbers}


def test_shapes_must_agree(case):
    """An argument with a row less than the others is refused by name when it is traced."""
    arguments = case.arguments()
    rows = {name: x for name, x in arguments.items() if name not in case.shared}
    leaves, tree = jax.tree.flatten_with_path(rows)
    for i in range(len(leaves)) if len(leaves) > 1 else ():
        cut = [leaf[:-1] if j == i else leaf for j, (_, leaf) in enumerate(leaves)]
        wrong = arguments | jax.tree.unflatten(tree, cut)
        with pytest.raises(AssertionError) as error:
            jax.eval_shape(functools.partial(case, wrong, **case.settings[0]))
        name = leaves[i][0][0].key
        if flags_of(case):
            assert name in str(error.value)


def test_an_axis_more(case):
    """Refused where it would be summed or sorted along the wrong one; entries by themselves have
    any number of axes.
    """
    arguments = case.arguments()
    add = functools.partial(np.expand_dims, axis=-1)
    of_rows = set(arguments) - set(case.shared)
    deeper = case.on_rows(add, arguments) if of_rows else jax.tree.map(add, arguments)
    with pytest.raises(AssertionError) if case.fixed_rank else contextlib.nullcontext():
        jax.eval_shape(functools.partial(case, deeper, **case.settings[0]))


@to_those(flags_of)
def test_flags_of_any_type(case):
    """Booleans and whole numbers give the same bits, real numbers are refused unless weights."""
    arguments = cast(case.arguments(), "float32")
    expected = jax.tree.leaves(case.compiled[0](arguments))
    for name in flags_of(case):
        drawn = jnp.asarray(arguments[name], "int32")
        weights = "weights" in descriptions(case.function).get(name, "")
        flags = [drawn.astype(dtype) for dtype in ("int8", "uint8", "int32")]
        for given in flags if weights else (*flags, 3 * drawn):
            ours = jax.tree.leaves(case.compiled[0](arguments | {name: given}))
            for one, wanted in zip(ours, expected, strict=True):
                assert one.dtype == wanted.dtype
                np.testing.assert_array_equal(one, wanted)
        if not weights:
            given = arguments | {name: drawn.astype("float32")}
            with pytest.raises(AssertionError, match=f"^{name} is float32"):
                jax.eval_shape(functools.partial(case, given, **case.settings[0]))


@to_those(stated)
def test_ranges_of_the_docstring_are_kept(case):
    """A number outside is refused by name, Python's or NumPy's."""
    arguments = cast(case.arguments(), "float32")
    for name, numbers in stated(case).items():
        for number in (*numbers, np.float32(numbers[-1])):
            with pytest.raises(ValueError, match=f"^{name} must"):
                case(arguments, **{**case.settings[0], name: number})


@to_those(lambda case: case.invalid)
def test_bad_settings_are_refused(case):
    for settings, message in case.invalid:
        with pytest.raises(ValueError) as error:
            case(cast(case.arguments(), "float32"), **settings)
        assert str(error.value).startswith(message)
