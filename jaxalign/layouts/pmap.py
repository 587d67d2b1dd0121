"""Data-parallel layouts: every chip of a host holds the state and computes its own rows."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from jaxalign.layouts.layout import AXIS, Device, Layout, donated, row_mesh


def on_pmap(devices: Sequence[Device] | None = None) -> Layout:
    """Data-parallel layout by `pmap`: a device has the state and an equal share of the rows."""
    mesh = row_mesh(devices)
    whole, by_row = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), (AXIS,)))

    def compile(fn: Callable[..., Any], returns: str) -> Callable[..., Any]:
        return jax.pmap(
            fn,
            axis_name=AXIS,
            in_axes=(None, 0),
            out_axes=0 if returns == "rows" else None,
            devices=tuple(mesh.devices),
            donate_argnums=donated(returns),
        )

    def fold(rows: Any) -> Any:
        return rows.reshape(mesh.size, -1, *rows.shape[1:])

    def unfold(rows: Any) -> Any:
        return rows.reshape(-1, *rows.shape[2:])

    return Layout(
        name="pmap",
        devices=tuple(mesh.devices),
        axis_name=AXIS,
        shardings=lambda tree: jax.tree.map(lambda leaf: whole, tree),
        compile=compile,
        put_rows=lambda batch: jax.device_put(jax.tree.map(fold, batch), by_row),
        take_rows=lambda out: jax.tree.map(unfold, jax.device_get(out)),
    )


def on_shards(devices: Sequence[Device] | None = None) -> Layout:
    """Data-parallel layout by `jit` of `shard_map`, the newer form of `pmap`."""
    mesh = row_mesh(devices)
    whole, by_row = PartitionSpec(), PartitionSpec(AXIS)

    def compile(fn: Callable[..., Any], returns: str) -> Callable[..., Any]:
        # check_vma stays off so that a model may start a scan from zeros without marking them
        # device-varying
        mapped = jax.shard_map(
            fn,
            mesh=mesh,
            in_specs=(whole, by_row),
            out_specs=by_row if returns == "rows" else whole,
            check_vma=False,
        )
        return jax.jit(mapped, donate_argnums=donated(returns))

    return Layout(
        name="shards",
        devices=tuple(mesh.devices),
        axis_name=AXIS,
        shardings=lambda tree: jax.tree.map(lambda leaf: NamedSharding(mesh, whole), tree),
        compile=compile,
        put_rows=lambda batch: jax.device_put(batch, NamedSharding(mesh, by_row)),
        take_rows=jax.device_get,
    )
