"""Ends of episodes and of rollouts, and the recurrences over the steps between them."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxalign.numerics.arguments import assert_rank, assert_same_shape, flags

Recurrence = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


class EpisodeEnds(NamedTuple):
    """Ends of episodes, and values after them, with nothing left out.

    terminations, truncations: `[B, T]` bool. final_values: `[B, T]`, read where truncated.
    bootstrap_values: `[B]`, the value after the last unmasked step.
    """

    terminations: jax.Array
    truncations: jax.Array
    final_values: jax.Array
    bootstrap_values: jax.Array

    @property
    def over(self) -> jax.Array:
        """`[B, T]` bool: the episode ends with this step."""
        return self.terminations | self.truncations


def episode_ends(
    values: jax.Array,
    mask: jax.Array,
    *,
    terminations: jax.Array | None = None,
    truncations: jax.Array | None = None,
    final_values: jax.Array | None = None,
    bootstrap_values: jax.Array | None = None,
) -> EpisodeEnds:
    """Ends of episodes from a caller's arguments: None ends nowhere, or has the value 0.

    Args:
      values: `[B, T]`, whose type the ends get.
      mask: `[B, T]` bool.
      terminations, truncations, final_values, bootstrap_values: as in `gae`.

    Raises:
      AssertionError: the shapes differ, or flags are real numbers.
      ValueError: truncations without final_values.
    """
    assert_rank(2, values=values)
    assert_same_shape(
        values=values,
        mask=mask,
        terminations=terminations,
        truncations=truncations,
        final_values=final_values,
    )
    if truncations is not None and final_values is None:
        raise ValueError(
            "truncations need final_values, the values of the observations they cut at"
        )
    after_last = jnp.zeros_like(values[:, 0])
    if bootstrap_values is not None:
        assert_same_shape(bootstrap_values=bootstrap_values, after_last=after_last)
        after_last = jnp.asarray(bootstrap_values, values.dtype)
    nowhere = jnp.zeros_like(mask, bool)
    return EpisodeEnds(
        terminations=nowhere if terminations is None else flags(terminations=terminations),
        truncations=nowhere if truncations is None else flags(truncations=truncations),
        final_values=jnp.asarray(values if final_values is None else final_values, values.dtype),
        bootstrap_values=after_last,
    )


def values_after(
    values: jax.Array, mask: jax.Array, ends: EpisodeEnds, recurrence: Recurrence
) -> jax.Array:
    """Values after each step, `[B, T]`, as in `gae`; `values` are 0 where masked."""
    from_here = recurrence((~mask).astype(values.dtype), values, ends.bootstrap_values)
    following = jnp.concatenate([from_here[:, 1:], ends.bootstrap_values[:, None]], axis=1)
    following = jnp.where(ends.truncations, ends.final_values, following)
    return jnp.where(ends.terminations, 0, following)


def recurrence_scan(factors: jax.Array, terms: jax.Array, last: jax.Array) -> jax.Array:
    """Linear recurrence backwards in time, one step at a time.

      x_t = terms_t + factors_t x_{t+1},  x_T = last

    Args:
      factors, terms: `[B, T]`.
      last: `[B]`.

    Returns:
      `[B, T]`.
    """

    def step(after: jax.Array, now: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        x = now[1] + now[0] * after
        return x, x

    last = last + jnp.zeros_like(terms[:, 0])  # varying over the same mapped axes as the terms
    _, xs = jax.lax.scan(step, last, (factors.T, terms.T), reverse=True)
    return xs.T


def associative_recurrence(factors: jax.Array, terms: jax.Array, last: jax.Array) -> jax.Array:
    """`recurrence_scan` as a parallel prefix of the affine maps x -> term + factor x."""

    def compose(
        later: tuple[jax.Array, jax.Array], earlier: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        return later[0] * earlier[0], earlier[1] + earlier[0] * later[1]

    maps = jax.lax.associative_scan(compose, (factors, terms), reverse=True, axis=1)
    return maps[1] + maps[0] * last[:, None]
