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
from jax.sharding import Mesh

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

    def place(self, tree):
        """A copy of a state (or parameters) on the devices, whose memory a step may overwrite."""
        shardings = self.shardings(tree)
        copy = jax.jit(lambda leaves: jax.tree.map(jnp.copy, leaves), out_shardings=shardings)
        return copy(jax.device_put(tree, shardings))

    def put(self, array: np.ndarray):
        """A parameter that was just read: on a mesh onto its devices, otherwise still on the host.

        Only on a mesh may the parameters be too many for one place.
        """
        if self.name != "mesh":
            return array
        return jax.device_put(array, self.shardings(array)).block_until_ready()

    def step(self, fn):
        """Compile `fn(state, batch, axis_name=...) -> (state, metrics)`.

        The state goes in as `place` returned it and is used up: only the returned one may be used
        afterwards.
        """
        return self._run(functools.partial(fn, axis_name=self.axis_name), "state")

    def sums(self, fn):
        """Compile `fn(shared, batch, axis_name=...) -> tree`, equal on all devices (psum it)."""
        return self._run(functools.partial(fn, axis_name=self.axis_name), "sums")

    def rows(self, fn):
        """Compile `fn(shared, batch) -> tree of [rows, ...]`; the result is all rows, in NumPy.

        For scoring and sampling, in which every row stands for itself: any number of rows is
        filled up to what the devices divide, and what comes of those rows is left out. `shared` is
        any pytree that every device needs, such as `(params, key)`; `place` it once if it is used
        often.
        """
        run = self._run(fn, "rows")

        def all_rows(shared, batch):
            padded, rows = pad_rows(batch, len(self.devices))
            return trim_rows(self.take_rows(run(shared, padded)), rows)

        return all_rows

    def _run(self, fn, returns: str):
        compiled = self.compile(fn, returns)

        def run(shared, batch):
            check_rows(batch, len(self.devices))
            return compiled(_moved(shared, self.shardings(shared)), self.put_rows(batch))

        return run


def pad_rows(tree, multiple: int):
    """Append rows of zeros until the number of rows divides; zero masks weigh nothing.

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

    def padded(x):
        pad = jnp.pad if isinstance(x, jax.Array) else np.pad
        return pad(x, [(0, missing)] + [(0, 0)] * (np.ndim(x) - 1))

    return jax.tree.map(padded, tree), rows


def trim_rows(tree, rows: int):
    """The first `rows` rows of every leaf: undoes `pad_rows`."""
    return jax.tree.map(lambda x: x[:rows], tree)


def check_rows(batch, devices: int) -> int:
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


def row_mesh(devices: Sequence | None) -> Mesh:
    """The devices (all visible ones if None) along the one axis that rows are split over."""
    return Mesh(np.array(jax.devices() if devices is None else devices), (AXIS,))


def donated(returns: str) -> tuple[int, ...]:
    """A step may write the new state over the old one."""
    return (0,) if returns == "state" else ()


def _moved(tree, shardings):
    """The tree with these shardings; leaves that have theirs already are not touched."""

    def moved(leaf, sharding):
        there = isinstance(leaf, jax.Array) and leaf.sharding == sharding
        return leaf if there else jax.device_put(leaf, sharding)

    return jax.tree.map(moved, tree, shardings)
