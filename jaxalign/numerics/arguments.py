"""Checks of the arguments of every formula, which name the one that is wrong.

Shapes and types are known when a formula is traced; numbers are checked where they are Python's or
NumPy's own, since those of arrays are not known then.
"""

from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign.numerics.bounds import Range
from jaxalign.numerics.types import Tree


def flags(**named: jax.Array) -> jax.Array:
    """An argument of booleans, or of whole numbers that are 0 for false, as booleans.

    A real number is refused: as a weight it would mean something else here than there.

    Args:
      named: the one argument, under its name.

    Raises:
      AssertionError: it holds real numbers.

    >>> flags(mask=jnp.array([1, 0], jnp.int8)).tolist()
    [True, False]
    """
    ((name, x),) = named.items()
    dtype = jnp.result_type(x)
    if not (jnp.issubdtype(dtype, jnp.bool_) or jnp.issubdtype(dtype, jnp.integer)):
        raise AssertionError(
            f"{name} is {dtype}; give booleans, or whole numbers that are 0 for false"
        )
    return jnp.asarray(x) if dtype == jnp.bool_ else jnp.asarray(x) != 0


def assert_same_shape(*, axes: int | None = None, **named: Tree) -> None:
    """Check that arguments have the same shape, or the same first axes.

    Args:
      axes: how many of the first axes are compared; None: all, and none may have more.
      named: the arguments, arrays or pytrees of them, under their names.

    Raises:
      AssertionError: they have not.

    >>> assert_same_shape(scores=jnp.zeros(3), mask=jnp.ones(2))
    Traceback (most recent call last):
    AssertionError: the shapes must agree: scores [3], mask [2]
    """
    shapes = _shapes(named)
    if len({shape[:axes] for shape in shapes.values()}) > 1:
        what = "shapes" if axes is None else "first axes" if axes > 1 else "rows"
        raise AssertionError(f"the {what} must agree: {_listed(shapes)}")


def assert_rank(rank: int, **named: Tree) -> None:
    """Check that arguments have that number of axes.

    Args:
      rank: the number.
      named: the arguments, arrays or pytrees of them, under their names.

    Raises:
      AssertionError: they have not.

    >>> assert_rank(2, scores=jnp.zeros(3))
    Traceback (most recent call last):
    AssertionError: 2 axes are wanted: scores [3]
    """
    if wrong := {name: shape for name, shape in _shapes(named).items() if len(shape) != rank}:
        raise AssertionError(
            f"{rank} {'axis is' if rank == 1 else 'axes are'} wanted: {_listed(wrong)}"
        )


def assert_range(allowed: Range, **named: object) -> None:
    """Check that hyper-parameters lie in a range, where they are numbers and not arrays.

    Args:
      allowed: the range.
      named: numbers, or tuples of them, under their names; None is passed over.

    Raises:
      ValueError: they do not.

    >>> assert_range(Range(least=0, most=1, below=True), decay=1.0)
    Traceback (most recent call last):
    ValueError: decay must be in [0, 1), got 1.0
    """
    for name, given in named.items():
        numbers = cast(tuple[Any, ...], given if isinstance(given, tuple) else (given,))
        for number in numbers:
            known = isinstance(number, int | float | np.number)
            if known and np.asarray(number).item() not in allowed:
                raise ValueError(f"{name} must be {allowed.in_words}, got {given}")


def _shapes(named: dict[str, Tree]) -> dict[str, tuple[int, ...]]:
    """The shapes of all arrays by their names: `scores`, or `policy.chosen` of a pytree."""
    return {
        name + jax.tree_util.keystr(path): np.shape(leaf)
        for name, tree in named.items()
        for path, leaf in cast(list[tuple[Any, Any]], jax.tree.leaves_with_path(tree))
    }


def _listed(shapes: dict[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
