"""Rows of a shared prefix and several continuations of it, so that the prefix is read once."""

import dataclasses

import jax
import jax.numpy as jnp

from jaxalign.models.layers import positions_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class SharedPrefix:
    """Layout of a row that holds a prefix and, behind it, continuations of equal length.

    A token sees the prefix and its own continuation, as if these two were a row of their own, a
    sequence. Below, K is `count`, P is `columns`, R the columns of a continuation: rows have
    P + K R columns, sequences P + R.

    columns: of the prefix, at least 1.
    count: number of continuations, at least 1.
    """

    columns: int
    count: int

    def of_last(self, last: int, columns: int) -> "SharedPrefix":
        """Layout of the last columns alone, `last` of the `columns` of a row."""
        return dataclasses.replace(self, columns=self.columns - (columns - last))

    def prefix(self, x: jax.Array, axis: int) -> jax.Array:
        """The first P columns, along that axis."""
        return jax.lax.slice_in_dim(x, 0, self.columns, axis=axis)

    def continuations(self, x: jax.Array, axis: int) -> jax.Array:
        """Continuations as rows: `[B, ..., P + K R, ...]` to `[B K, ..., R, ...]`."""
        rest = jax.lax.slice_in_dim(x, self.columns, x.shape[axis], axis=axis)
        before, after = rest.shape[1:axis], rest.shape[axis + 1 :]
        columns = rest.shape[axis] // self.count
        apart = rest.reshape(len(x), *before, self.count, columns, *after)
        return jnp.moveaxis(apart, axis, 1).reshape(-1, *before, columns, *after)

    def sequences(self, x: jax.Array, axis: int) -> jax.Array:
        """Continuations as rows with the prefix before each: `[B K, ..., P + R, ...]`."""
        prefixes = jnp.repeat(self.prefix(x, axis), self.count, axis=0)
        return jnp.concatenate([prefixes, self.continuations(x, axis)], axis=axis)

    def rows(self, prefix: jax.Array, continuations: jax.Array, axis: int) -> jax.Array:
        """Whole rows from their `prefix` and `continuations`: the inverse of these two."""
        shape = continuations.shape
        apart = continuations.reshape(-1, self.count, *shape[1:])
        rest = jnp.moveaxis(apart, 1, axis).reshape(
            -1, *shape[1:axis], self.count * shape[axis], *shape[axis + 1 :]
        )
        return jnp.concatenate([prefix, rest], axis=axis)

    def positions(self, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Positions of the tokens, counted in their sequences: `[B, P]` and `[B K, P + R]`."""
        parts = self.prefix(mask, 1), self.sequences(mask, 1)
        prefix, sequences = (positions_of(part, jnp.zeros(len(part), jnp.int32)) for part in parts)
        return prefix, sequences
