"""Every public function under jit, vmap, pmap and shard_map, and with its rows in another order."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from tests.cases.case import ROWS, cast
from tests.checks.applies import to_those
from tests.checks.close import assert_same

CLOSE = {"rtol": 2e-5, "atol": 1e-5}
DEVICES = 8


def with_rows(case) -> set:
    return set(case.arguments()) - set(case.shared)


@pytest.mark.compiled
def test_compiled_and_batched(case):
    """jit(vmap(f)) of three draws is f of each."""
    draws = [cast(case.arguments(seed), "float32") for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *draws)
    f = functools.partial(case, **case.settings[-1])
    together = jax.jit(jax.vmap(f))(stacked)
    for number, arguments in enumerate(draws):
        assert_same(jax.tree.map(lambda x, n=number: x[n], together), f(arguments), **CLOSE)


@to_those(with_rows)
def test_rows_have_no_order(case):
    """Other rows first: the same numbers, in that order."""
    order = np.array([2, 0, 3, 1])
    arguments = cast(case.arguments(), "float32")
    f = case.compiled[0]
    moved = f(case.on_rows(lambda x: x[order], arguments))
    still = jax.tree.map(lambda x: x[order] if np.ndim(x) and len(x) == ROWS else x, f(arguments))
    assert_same(moved, still, **CLOSE)


@to_those(lambda case: with_rows(case) and case.spread == "rows")
def test_a_row_alone_is_the_row_among_others(case):
    arguments = cast(case.arguments(), "float32")
    f = case.compiled[0]
    alone = f(case.on_rows(lambda x: x[1:2], arguments))
    assert_same(alone, jax.tree.map(lambda x: x[1:2], f(arguments)), **CLOSE)


def uneven(case):
    """Two draws a device, the last device's with nothing unmasked."""
    draws = [cast(case.arguments(seed), "float32") for seed in range(DEVICES)]
    if case.mask in draws[-1]:
        draws[-1][case.mask] = np.zeros_like(draws[-1][case.mask])
    return {
        name: draws[0][name]
        if name in case.shared
        else jax.tree.map(lambda *leaves: np.concatenate(leaves), *(draw[name] for draw in draws))
        for name in draws[0]
    }


def on_devices(layout, f, arguments, shared):
    """`f` of the rows, cut into eight parts."""
    if layout == "pmap":
        parts = {
            name: x
            if name in shared
            else jax.tree.map(lambda leaf: leaf.reshape(DEVICES, -1, *leaf.shape[1:]), x)
            for name, x in arguments.items()
        }
        axes = {name: None if name in shared else 0 for name in arguments}
        found = jax.pmap(f, axis_name="i", in_axes=(axes,))(parts)
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), found)
    mesh = jax.make_mesh((DEVICES,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
    specs = {name: P() if name in shared else P("i") for name in arguments}
    mapped = jax.shard_map(f, mesh=mesh, in_specs=(specs,), out_specs=P("i"))
    return jax.jit(mapped)(arguments)


@pytest.mark.slow
@pytest.mark.compiled
@pytest.mark.parametrize("layout", ["pmap", "shard_map"])
@to_those(with_rows)
def test_eight_devices_as_one(case, layout):
    """Every device returns its rows of what one device returns for all."""
    arguments, settings = uneven(case), case.settings[0]
    pooled = {"axis_name": "i"} if case.spread == "pooled" else {}

    def spread(part):
        """Numbers that all devices share are repeated, or added up, so that all have rows."""
        found = case(part, **settings, **pooled)

        def per_row(x):
            if x.ndim and len(x) == ROWS:
                return x
            x = jax.lax.psum(x, "i") if case.spread == "sums" else x
            return jnp.where(jax.lax.axis_index("i") >= 0, x, x)[None]  # varying, for out_specs

        return jax.tree.map(per_row, found)

    whole = case.compiled[0](arguments)
    found = on_devices(layout, spread, arguments, case.shared)
    for ours, expected in zip(jax.tree.leaves(found), jax.tree.leaves(whole), strict=True):
        if not (np.ndim(expected) and len(expected) == ROWS * DEVICES):
            expected = np.broadcast_to(np.asarray(expected)[None], np.shape(ours))
        np.testing.assert_allclose(ours, expected, **CLOSE)
