"""Layouts of a step on one device or on several, with the same update everywhere.

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
from jax.sharding import Mesh, Sharding

from jaxalign.errors import UserError
from jaxalign.numerics.types import Tree

AXIS = "data"
Device = Any  # jax.Device, which type checkers take for a variable
LAYOUTS = ("auto", "device", "pmap", "shards", "mesh")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """Layout of a step on devices, made by `on_device`, `on_pmap`, `on_shards`, `on_mesh` or by
    `make_layout`.

    name: which of them made it.
    devices: where it runs.
    axis_name: name of the axis that rows are mapped over, None where a step sees all rows.
    shardings: gives the sharding of every leaf of a shared tree.
    compile: `compile(fn, returns)` for arguments on the devices; returns: "state", "sums", "rows".
    put_rows: a host batch onto the devices.
    take_rows: the rows of a result onto the host.
    """

    name: str
    devices: tuple[Any, ...]
    axis_name: str | None
    shardings: Callable[[Any], Any]
    compile: Callable[[Callable, str], Callable]
    put_rows: Callable[[Any], Any]
    take_rows: Callable[[Any], Any]

    def place(self, tree: Tree) -> Tree:
        """Copy of a state (or parameters) on the devices, whose memory a step may overwrite."""
        shardings = self.shardings(tree)
        if len(self.devices) == 1:
            return jax.tree.map(_own, tree, jax.device_put(tree, shardings, may_alias=False))
        there = jax.device_put(tree, shardings)
        return jax.jit(lambda x: jax.tree.map(jnp.copy, x), out_shardings=shardings)(there)

    def put(self, array: np.ndarray) -> np.ndarray | jax.Array:
        """One parameter as it is read from a file: on the devices of a mesh, else on the host.

        Only on a mesh may all parameters together exceed the memory of one device.
        """
        if self.name != "mesh":
            return array
        return jax.device_put(array, self.shardings(array)).block_until_ready()

    def put_shared(self, tree: Tree) -> Tree:
        """What several calls of a compiled function read, on the devices; what is there already
        stays, and no step may overwrite it.
        """
        return _moved(tree, self.shardings(tree))

    def step(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Compiled training step `fn(state, batch, axis_name=...) -> (state, metrics)`.

        The state goes in as `place` returned it and is used up: only the returned one may be used
        afterwards.
        """
        return self._run(functools.partial(fn, axis_name=self.axis_name), "state")

    def sums(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Compiled sums `fn(shared, batch, axis_name=...) -> tree`, equal on all devices (psum)."""
        return self._run(functools.partial(fn, axis_name=self.axis_name), "sums")

    def rows(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Compiled function of rows, `fn(shared, batch) -> tree of [rows, ...]`, result in NumPy.

        For scoring and sampling, in which no row depends on others: the batch is padded to a number
        of rows that the devices divide, and the result is cut to the rows of the batch. `shared` is
        any pytree that every device needs, such as `(params, key)`; `place` it once if it is used
        often.
        """
        run = self._run(fn, "rows")

        def all_rows(shared: Tree, batch: Tree) -> Tree:
            padded, rows = pad_rows(batch, len(self.devices))
            return trim_rows(self.take_rows(run(shared, padded)), rows)

        return all_rows

    def _run(self, fn: Callable[..., Any], returns: str) -> Callable[..., Any]:
        compiled = self.compile(fn, returns)

        def run(shared: Tree, batch: Tree) -> Any:
            check_rows(batch, len(self.devices))
            return compiled(self.put_shared(shared), self.put_rows(batch))

        return run


def pad_rows(tree: Tree, multiple: int) -> tuple[Tree, int]:
    """Batch padded with rows of zeros to a multiple of rows; zero masks weigh nothing.

    Args:
      tree: pytree of `[B, ...]` arrays.
      multiple: what the number of rows must divide by (devices, or the batch size of one compiled
        pass).

    Returns:
      The padded tree and B, for `trim_rows` afterwards.
    """
    rows = check_rows(tree, 1)
    missing = -rows % multiple
    if not missing:
        return tree, rows

    def padded(x: Any) -> Any:
        pad = jnp.pad if isinstance(x, jax.Array) else np.pad
        return pad(x, [(0, missing)] + [(0, 0)] * (np.ndim(x) - 1))

    return jax.tree.map(padded, tree), rows


def trim_rows(tree: Tree, rows: int) -> Tree:
    """The first `rows` rows of every leaf: undoes `pad_rows`."""
    return jax.tree.map(lambda x: x[:rows], tree)


def check_rows(batch: Tree, devices: int) -> int:
    """Number of rows, the same in every leaf and divisible by the devices.

    Raises:
      UserError: it is not.
    """
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


def row_mesh(devices: Sequence[Device] | None) -> Mesh:
    """Mesh of the devices (None: all visible ones) with one axis, which rows are split over."""
    return Mesh(np.array(jax.devices() if devices is None else devices), (AXIS,))


def donated(returns: str) -> tuple[int, ...]:
    """Arguments whose memory the result may take: the state of a step."""
    return (0,) if returns == "state" else ()


def _own(leaf: Any, there: jax.Array) -> jax.Array:
    """What was put on a device, in memory of its own: a processor may take NumPy's as it is."""
    shared = isinstance(leaf, np.ndarray) and there.unsafe_buffer_pointer() == leaf.ctypes.data
    return jnp.copy(there) if shared else there


def _moved(tree: Tree, shardings: Tree) -> Tree:
    """The tree with these shardings; leaves that have theirs already are not copied."""

    def moved(leaf: Any, sharding: Sharding) -> Any:
        there = isinstance(leaf, jax.Array) and leaf.sharding == sharding
        return leaf if there else jax.device_put(leaf, sharding)

    return jax.tree.map(moved, tree, shardings)
