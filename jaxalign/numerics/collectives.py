"""Collectives that are identities on one device: one step for every layout."""

from typing import cast

import jax

from jaxalign.numerics.types import Tree


def vary(tree: Tree, axis_name: str | None) -> Tree:
    """The tree marked as device-varying, so that `grad` of a local sum stays local.

    Inside `shard_map` the gradient with respect to a *replicated* value is already summed over
    devices; a `psum` after it would count every device twice. Differentiating a varying copy gives
    the local gradient on every layout, and one `psum` then gives the global one.

    Args:
      tree: pytree of arrays, replicated over `axis_name`.
      axis_name: name of the mapped axis, or None on one device.

    Returns:
      The same numbers; on one device the same tree.
    """
    if axis_name is None:
        return tree

    def varying(leaf: jax.Array) -> jax.Array:
        return cast(jax.Array, jax.lax.pcast(leaf, axis_name, to="varying"))

    return jax.tree.map(varying, tree)


def psum(tree: Tree, axis_name: str | None) -> Tree:
    """Sum of every leaf over the mapped axis; the identity when `axis_name` is None."""
    return tree if axis_name is None else cast(Tree, jax.lax.psum(tree, axis_name))


def gather(x: jax.Array, axis_name: str | None) -> jax.Array:
    """The rows of all devices, one after the other; the identity when `axis_name` is None."""
    if axis_name is None:
        return x
    return cast(jax.Array, jax.lax.all_gather(x, axis_name, tiled=True))


def own_rows(x: jax.Array, rows: int, axis_name: str | None) -> jax.Array:
    """This device's rows, `rows` of them, among those of all devices: the inverse of `gather`."""
    if axis_name is None:
        return x
    start = jax.lax.axis_index(axis_name) * rows
    return jax.lax.dynamic_slice_in_dim(x, start, rows)
