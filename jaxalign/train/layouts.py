"""Where a step runs: on one device or on several, with the same update everywhere.

A layout turns functions of `(shared, batch)` into functions that take a *global* host batch: any
pytree of arrays with a row axis first. What is shared (state, parameters, keys) has one logical
shape whatever the devices, so a checkpoint written under one layout is read under any other.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxalign.errors import UserError

AXIS = "data"
LAYOUTS = ("auto", "device", "pmap", "shards", "mesh")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """A place to run in; made by `on_device`, `on_pmap`, `on_shards`, `on_mesh` or `make_layout`.

    name: which of them made it.
    devices: where it runs.
    axis_name: name of the axis that rows are mapped over, None where a step sees all rows.
    shardings: gives the sharding of every leaf of a shared tree.
    wrap: `wrap(fn, returns)` compiles `fn(shared, batch)`; see the methods.
    """

    name: str
    devices: tuple[Any, ...]
    axis_name: str | None
    shardings: Callable[[Any], Any]
    wrap: Callable[[Callable, str], Callable]

    def place(self, tree):
        """A copy of a state (or parameters) on the devices, whose memory a step may overwrite."""
        shardings = self.shardings(tree)
        copy = jax.jit(lambda leaves: jax.tree.map(jnp.copy, leaves), out_shardings=shardings)
        return copy(jax.device_put(tree, shardings))

    def step(self, fn):
        """Compile `fn(state, batch, axis_name=...) -> (state, metrics)`.

        The state goes in as `place` returned it and is used up: only the returned one may be used
        afterwards.
        """
        return self.wrap(functools.partial(fn, axis_name=self.axis_name), "state")

    def sums(self, fn):
        """Compile `fn(shared, batch, axis_name=...) -> tree`, equal on all devices (psum it)."""
        return self.wrap(functools.partial(fn, axis_name=self.axis_name), "sums")

    def rows(self, fn):
        """Compile `fn(shared, batch) -> tree of [rows, ...]`; the result is all rows, in NumPy.

        For scoring and sampling. `shared` is any pytree that every device needs, such as
        `(params, key)`.
        """
        return self.wrap(fn, "rows")


def on_device(device=None) -> Layout:
    """Everything on one device: `jit`."""
    device = jax.devices()[0] if device is None else device
    sharding = jax.sharding.SingleDeviceSharding(device)

    def wrap(fn, returns):
        run = jax.jit(fn, donate_argnums=0 if returns == "state" else ())

        def call(shared, batch):
            _count_rows(batch, 1)
            return _host(run(shared, jax.device_put(batch, sharding)), returns)

        return call

    return Layout(
        name="device",
        devices=(device,),
        axis_name=None,
        shardings=lambda tree: jax.tree.map(lambda leaf: sharding, tree),
        wrap=wrap,
    )


def on_pmap(devices: Sequence | None = None) -> Layout:
    """Data parallel by `pmap`: every device holds the state and an equal share of the rows."""
    devices = tuple(jax.devices() if devices is None else devices)

    def wrap(fn, returns):
        run = jax.pmap(
            fn,
            axis_name=AXIS,
            in_axes=(None, 0),
            out_axes=0 if returns == "rows" else None,
            devices=devices,
            donate_argnums=0 if returns == "state" else (),
        )

        def call(shared, batch):
            _count_rows(batch, len(devices))
            out = run(shared, jax.tree.map(lambda rows: _fold(rows, len(devices)), batch))
            return jax.tree.map(_unfold, jax.device_get(out)) if returns == "rows" else out

        return call

    whole = NamedSharding(Mesh(np.array(devices), (AXIS,)), PartitionSpec())
    return Layout(
        name="pmap",
        devices=devices,
        axis_name=AXIS,
        shardings=lambda tree: jax.tree.map(lambda leaf: whole, tree),
        wrap=wrap,
    )


def on_shards(devices: Sequence | None = None) -> Layout:
    """Data parallel by `jit` of `shard_map`: what `pmap` does, in its newer form."""
    devices = tuple(jax.devices() if devices is None else devices)
    mesh = Mesh(np.array(devices), (AXIS,))
    whole, by_row = PartitionSpec(), PartitionSpec(AXIS)

    def wrap(fn, returns):
        # check_vma stays off so that a model may start a scan from zeros without marking them
        # device-varying
        mapped = jax.shard_map(
            fn,
            mesh=mesh,
            in_specs=(whole, by_row),
            out_specs=by_row if returns == "rows" else whole,
            check_vma=False,
        )
        run = jax.jit(mapped, donate_argnums=0 if returns == "state" else ())

        def call(shared, batch):
            _count_rows(batch, len(devices))
            return _host(run(shared, jax.device_put(batch, NamedSharding(mesh, by_row))), returns)

        return call

    return Layout(
        name="shards",
        devices=devices,
        axis_name=AXIS,
        shardings=lambda tree: jax.tree.map(lambda leaf: NamedSharding(mesh, whole), tree),
        wrap=wrap,
    )


def on_mesh(devices: Sequence | None = None) -> Layout:
    """Fully sharded data parallel: rows *and* state are split over the devices (`jit`).

    For a state that does not fit one device. The compiler inserts the collectives; a step sees all
    rows. The output shardings are pinned to those of the input, so that the second step is the
    first one's program.
    """
    devices = tuple(jax.devices() if devices is None else devices)
    mesh = Mesh(np.array(devices), (AXIS,))
    whole, by_row = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec(AXIS))

    def shardings(tree):
        spec = functools.partial(fsdp_spec, devices=len(devices))
        return jax.tree.map(lambda leaf: NamedSharding(mesh, spec(np.shape(leaf))), tree)

    def wrap(fn, returns):
        @functools.cache
        def compiled(structure, leaves):
            shared = jax.tree.unflatten(structure, leaves)
            outs = {"state": (shared, whole), "sums": whole, "rows": by_row}[returns]
            return jax.jit(
                fn,
                in_shardings=(shared, by_row),
                out_shardings=outs,
                donate_argnums=0 if returns == "state" else (),
            )

        def call(shared, batch):
            _count_rows(batch, len(devices))
            leaves, structure = jax.tree.flatten(shardings(shared))
            return _host(compiled(structure, tuple(leaves))(shared, batch), returns)

        return call

    return Layout(name="mesh", devices=devices, axis_name=None, shardings=shardings, wrap=wrap)


def make_layout(name: str = "auto", *, devices: int | None = None) -> Layout:
    """The layout of that name.

    Args:
      name: "device", "pmap", "shards", "mesh"; "auto" is "device" on one device and "pmap" on
        several.
      devices: how many of the visible devices to use; None is all ("device" uses one).

    Raises:
      UserError: unknown name, or more devices than there are.
    """
    if name not in LAYOUTS:
        raise UserError(f"layout {name!r} is unknown; use one of {', '.join(LAYOUTS)}")
    visible = jax.devices()
    count = len(visible) if devices is None else devices
    if not 1 <= count <= len(visible):
        raise UserError(f"{count} devices wanted, {len(visible)} visible; lower `devices`")
    if name == "device" or (name == "auto" and count == 1):
        return on_device(visible[0])
    makers = {"auto": on_pmap, "pmap": on_pmap, "shards": on_shards, "mesh": on_mesh}
    return makers[name](visible[:count])


def fsdp_spec(shape: tuple[int, ...], *, devices: int) -> PartitionSpec:
    """Split the largest axis that divides over the devices; keep the array whole if none does.

    >>> fsdp_spec((12, 64), devices=4)
    PartitionSpec(None, 'data')
    """
    divisible = [axis for axis, size in enumerate(shape) if size and size % devices == 0]
    if not divisible:
        return PartitionSpec()
    largest = max(divisible, key=lambda axis: shape[axis])
    return PartitionSpec(*[None] * largest, AXIS)


def pad_rows(tree, multiple: int):
    """Append rows of zeros until the number of rows divides; zero masks weigh nothing.

    Args:
      tree: pytree of `[B, ...]` host arrays.
      multiple: what the number of rows must divide by (devices, or the batch size of one compiled
        pass).

    Returns:
      The padded tree and B, for `trim_rows` afterwards.
    """
    rows = _count_rows(tree, 1)
    missing = -rows % multiple
    pad = [(0, missing)]
    padded = jax.tree.map(lambda x: np.pad(x, pad + [(0, 0)] * (np.ndim(x) - 1)), tree)
    return padded, rows


def trim_rows(tree, rows: int):
    """The first `rows` rows of every leaf: undoes `pad_rows`."""
    return jax.tree.map(lambda x: x[:rows], tree)


def _count_rows(batch, devices: int) -> int:
    """Number of rows, the same in every leaf and divisible by the devices."""
    counts = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(batch)}
    if len(counts) != 1 or () in counts:
        raise UserError(f"a batch needs one row axis in all its arrays; leading sizes are {counts}")
    ((rows,),) = counts
    if rows % devices:
        raise UserError(
            f"a batch of {rows} rows does not split over {devices} devices; "
            f"use a multiple of {devices}"
        )
    return rows


def _fold(rows, devices: int):
    """`[B, ...]` to `[devices, B / devices, ...]`."""
    return rows.reshape(devices, -1, *rows.shape[1:])


def _unfold(rows):
    """`[devices, B / devices, ...]` to `[B, ...]`."""
    return rows.reshape(-1, *rows.shape[2:])


def _host(out, returns: str):
    """Rows are data for the next batch and go to the host; state and sums stay."""
    return jax.device_get(out) if returns == "rows" else out
