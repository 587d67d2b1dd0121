"""Layout on a mesh: the state is divided over the chips, the compiler inserts the collectives."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jaxalign.layouts.layout import AXIS, Device, Layout, donated, row_mesh
from jaxalign.numerics.types import Tree


def on_mesh(devices: Sequence[Device] | None = None) -> Layout:
    """Fully sharded data-parallel layout: rows *and* state are split over the devices (`jit`).

    For a state that does not fit one device. The compiler inserts the collectives; a step sees all
    rows. The output shardings are pinned to those of the input, so that the second step is the
    first one's program.
    """
    mesh = row_mesh(devices)
    whole, by_row = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), (AXIS,)))

    def shardings(tree: Tree) -> Tree:
        def sharding(leaf: Any) -> NamedSharding:
            return NamedSharding(mesh, fsdp_spec(np.shape(leaf), devices=mesh.size))

        return jax.tree.map(sharding, tree)

    def compile(fn: Callable[..., Any], returns: str) -> Callable[..., Any]:
        @functools.cache
        def compiled(structure: Any, leaves: tuple[NamedSharding, ...]) -> Callable[..., Any]:
            shared = jax.tree.unflatten(structure, leaves)
            out = {"state": (shared, whole), "sums": whole, "rows": by_row}[returns]
            return jax.jit(
                fn,
                in_shardings=(shared, by_row),
                out_shardings=out,
                donate_argnums=donated(returns),
            )

        def run(shared: Tree, batch: Tree) -> Any:
            leaves, structure = jax.tree.flatten(shardings(shared))
            with jax.set_mesh(mesh):  # for kernels, which the compiler cannot split
                return compiled(structure, tuple(leaves))(shared, batch)

        return run

    return Layout(
        name="mesh",
        devices=tuple(mesh.devices),
        axis_name=None,
        shardings=shardings,
        compile=compile,
        put_rows=lambda batch: jax.device_put(batch, by_row),
        take_rows=jax.device_get,
    )


def fsdp_spec(shape: tuple[int, ...], *, devices: int) -> PartitionSpec:
    """Partition of an array: its largest axis that divides over the devices; none if none does.

    >>> tuple(fsdp_spec((12, 64), devices=4))
    (None, 'data')
    """
    divisible = [axis for axis, size in enumerate(shape) if size and size % devices == 0]
    if not divisible:
        return PartitionSpec()
    largest = max(divisible, key=lambda axis: shape[axis])
    return PartitionSpec(*[None] * largest, AXIS)
