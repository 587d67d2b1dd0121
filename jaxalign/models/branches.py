"""Several continuations of one beginning in a row, which is read once for all of them."""

import dataclasses

import jax
import jax.numpy as jnp

from jaxalign.models.layers import positions_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Branches:
    """Where the continuations stand: all behind the beginning, each in as many columns.

    A token sees the beginning and its own continuation, as if these two were a row of their own: a
    text. Below, K is `count`, P is `shared`, R the columns of a continuation: rows have P + K R
    columns, texts P + R.

    shared: columns of the beginning, at least 1.
    count: number of continuations, at least 1.
    """

    shared: int
    count: int

    def of_last(self, last: int, columns: int) -> "Branches":
        """Where they stand in the last columns alone of rows of so many."""
        return dataclasses.replace(self, shared=self.shared - (columns - last))

    def beginning(self, x: jax.Array, axis: int) -> jax.Array:
        """The first P columns, which lie along that axis."""
        return jax.lax.slice_in_dim(x, 0, self.shared, axis=axis)

    def continuations(self, x: jax.Array, axis: int) -> jax.Array:
        """Each of them as a row: `[B, ..., P + K R, ...]` to `[B K, ..., R, ...]`."""
        rest = jax.lax.slice_in_dim(x, self.shared, x.shape[axis], axis=axis)
        before, after = rest.shape[1:axis], rest.shape[axis + 1 :]
        columns = rest.shape[axis] // self.count
        apart = rest.reshape(len(x), *before, self.count, columns, *after)
        return jnp.moveaxis(apart, axis, 1).reshape(-1, *before, columns, *after)

    def texts(self, x: jax.Array, axis: int) -> jax.Array:
        """Each with the beginning before it: `[B K, ..., P + R, ...]`."""
        beginnings = jnp.repeat(self.beginning(x, axis), self.count, axis=0)
        return jnp.concatenate([beginnings, self.continuations(x, axis)], axis=axis)

    def rows(self, beginning: jax.Array, continuations: jax.Array, axis: int) -> jax.Array:
        """Puts together what `beginning` and `continuations` take apart."""
        shape = continuations.shape
        apart = continuations.reshape(-1, self.count, *shape[1:])
        rest = jnp.moveaxis(apart, 1, axis).reshape(
            -1, *shape[1:axis], self.count * shape[axis], *shape[axis + 1 :]
        )
        return jnp.concatenate([beginning, rest], axis=axis)

    def positions(self, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
        """How many real tokens of its text precede each: `[B, P]` and `[B K, P + R]`."""
        parts = self.beginning(mask, 1), self.texts(mask, 1)
        first, texts = (positions_of(part, jnp.zeros(len(part), jnp.int32)) for part in parts)
        return first, texts
