"""Every public function against an independent oracle, in every precision and at extremes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.cases.case import SEEDS, cast, real
from tests.checks.close import assert_same


def test_against_the_oracle(x64, case):
    """float64 to 1e-10, the result's tree and shapes included."""
    draws = [case.arguments(seed) for seed in SEEDS]
    if case.extremes:
        draws.append(case.extremes(np.random.default_rng(2)))
    for settings, compiled in zip(case.settings, case.compiled, strict=True):
        for arguments in draws:
            expected = case.expected(arguments, **settings)
            assert_same(compiled(arguments), expected, rtol=1e-10, atol=1e-10)


def error_bounds(case, arguments, settings):
    """First-order bounds of the rounding of a float32 computation, from the oracle's own slopes.

    2^-24 for each of some 32 operations, on every number that goes in and on the result.
    """

    def results(leaves):
        found = case.expected(jax.tree.unflatten(tree, leaves), **settings)
        return [np.asarray(x, float) for x in jax.tree.leaves(found)]

    leaves, tree = jax.tree.flatten(arguments)
    values = results(leaves)
    sizes = [np.abs(value) for value in values]
    for place, leaf in enumerate(leaves):
        for at in np.ndindex(np.shape(leaf)) if real(leaf) else ():
            moved = np.array(leaf)
            moved[at] += 1e-6 * abs(moved[at])
            others = results([moved if i == place else x for i, x in enumerate(leaves)])
            sizes = [
                size + np.abs(other - value) / 1e-6
                for size, other, value in zip(sizes, others, values, strict=True)
            ]
    return [32 * 2**-24 * size for size in sizes]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_low_precision(case, dtype):
    """Inputs of 8 bits are widened, not computed with: the result is that of float32."""
    settings, narrow = case.settings[-1], cast(case.arguments(), dtype)
    wide = jax.tree.map(
        lambda x: np.asarray(x, np.float64) if real(x) else x, cast(narrow, "float32")
    )
    ours = case.compiled[-1](narrow)
    for leaf in jax.tree.leaves(ours):
        wanted = jnp.float32 if case.widens else jnp.dtype(dtype)
        assert leaf.dtype == wanted or not jnp.issubdtype(leaf.dtype, jnp.floating)
    expected = jax.tree.leaves(case.expected(wide, **settings))
    bounds = error_bounds(case, wide, settings)
    for one, other, bound in zip(jax.tree.leaves(ours), expected, bounds, strict=True):
        assert np.shape(one) == np.shape(other)
        assert (np.abs(np.asarray(one, float) - np.asarray(other, float)) <= bound).all()


def test_integers_are_not_truncated(case):
    """Whole numbers given as integers mean the same as given as floats."""
    whole = jax.tree.map(lambda x: np.rint(x) if real(x) else x, case.arguments())
    integers = jax.tree.map(
        lambda x: x.astype(np.int32) if real(x) and np.isfinite(x).all() else x, whole
    )
    for settings, compiled in zip(case.settings, case.compiled, strict=True):
        floats = compiled(cast(whole, "float32"))
        assert_same(case(integers, **settings), floats, rtol=1e-6, atol=1e-6)
