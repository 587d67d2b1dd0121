"""Layouts of a step on one device or on several, with the same update everywhere.

A layout turns functions of `(shared, batch)` into functions that take a *global* host batch: any
pytree of arrays with a row axis first. What is shared (state, parameters, keys) has one logical
shape whatever the devices, so a checkpoint written under one layout is read under any other.
"""

import contextlib
import dataclasses
import functools
import threading
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

    def step(self, fn: Callable[..., Any]) -> "Program":
        """Compiled training step `fn(state, batch, axis_name=...) -> (state, metrics)`.

        The state goes in as `place` returned it and is used up: only the returned one may be used
        afterwards.
        """
        return self._program(functools.partial(fn, axis_name=self.axis_name), "state")

    def sums(self, fn: Callable[..., Any]) -> "Program":
        """Compiled sums `fn(shared, batch, axis_name=...) -> tree`, equal on all devices (psum)."""
        return self._program(functools.partial(fn, axis_name=self.axis_name), "sums")

    def rows(self, fn: Callable[..., Any]) -> "Program":
        """Compiled function of rows, `fn(shared, batch) -> tree of [rows, ...]`, result in NumPy.

        For scoring and sampling, in which no row depends on others: the batch is padded to a number
        of rows that the devices divide, and the result is cut to the rows of the batch. `shared` is
        any pytree that every device needs, such as `(params, key)`; `place` it once if it is used
        often.
        """
        program = self._program(fn, "rows")
        return dataclasses.replace(program, multiple=len(self.devices), takes_rows=True)

    def _program(self, fn: Callable[..., Any], returns: str) -> "Program":
        return Program(layout=self, compiled=self.compile(fn, returns))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Program:
    """A compiled function `(shared, batch) -> ...` on the devices of a layout.

    layout: made by it.
    compiled: the function, of arguments on the devices.
    multiple: a batch is padded with rows of zeros to a multiple of rows.
    takes_rows: whether the result is rows, which are taken onto the host without those of padding.
    begun: threads that compile it.
    """

    layout: Layout
    compiled: Callable[..., Any]
    multiple: int = 1
    takes_rows: bool = False
    begun: list[threading.Thread] = dataclasses.field(default_factory=list, repr=False)

    def __call__(self, shared: Tree, batch: Tree) -> Any:
        """The result for this host batch."""
        padded, rows = pad_rows(batch, self.multiple)
        check_rows(padded, len(self.layout.devices))
        while self.begun:
            self.begun.pop().join()
        outputs = self.compiled(self.layout.put_shared(shared), self.layout.put_rows(padded))
        return trim_rows(self.layout.take_rows(outputs), rows) if self.takes_rows else outputs

    def ahead(self, shared: Tree, batch: Tree) -> None:
        """Begin to compile for arguments like these, while other work goes on; on one device alone.

        Whatever fails will fail again when the function is called.
        """
        if len(self.layout.devices) > 1:
            return
        padded, _ = pad_rows(batch, self.multiple)
        shapes = jax.tree.map(_shape, (shared, padded), self.layout.shardings((shared, padded)))

        def compiles() -> None:
            with contextlib.suppress(Exception):
                self.compiled.lower(*shapes).compile()  # pyright: ignore[reportFunctionMemberAccess]

        thread = threading.Thread(target=compiles)
        thread.start()
        self.begun.append(thread)


def _shape(leaf: Any, sharding: Sharding) -> jax.ShapeDtypeStruct:
    """What the compiler has to know of an array."""
    array = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
    weak = getattr(leaf, "weak_type", False)
    return jax.ShapeDtypeStruct(np.shape(leaf), array.dtype, sharding=sharding, weak_type=weak)


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
