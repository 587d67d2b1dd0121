"""Exact mean and deviation of a one-sample gradient estimate, and how they compare to the truth."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

ZERO = 1e-9  # relative; what is 0 in theory is below 1e-12 in double precision


class Quality(NamedTuple):
    """Of a gradient estimate, relative to the true gradient.

    cosine: of the angle between the mean of the estimate and the truth; NaN where the mean is 0.
    size: length of the mean. bias: length of mean - truth.
    deviation: root of the summed variances of all entries.
    """

    cosine: jax.Array
    size: jax.Array
    bias: jax.Array
    deviation: jax.Array


def moments(
    losses: Callable[[jax.Array], jax.Array],
    logps: jax.Array,
    scores: jax.Array,
    weights: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Mean gradient and deviation over outcomes, of the gradient of one outcome's loss.

    Args:
      losses: `[N, K]` log-probabilities to `[N]`, the loss of every outcome from its own row.
      logps: `[N, K]` nats, where the gradient is taken: of an outcome's tokens, or of its members.
      scores: `[N, K, PREFIXES, VOCABULARY]`, their gradients with respect to the logits.
      weights: `[N]`, the probability of each outcome.
    """
    inner = jax.grad(lambda x: jnp.sum(losses(x)))(logps)
    each = jnp.einsum("nk,nkpv->npv", inner, scores)
    mean = jnp.einsum("n,npv->pv", weights, each)
    spread = jnp.sum(weights * jnp.sum((each - mean[None]) ** 2, axis=(1, 2)))
    return mean, jnp.sqrt(spread)


def quality(mean: jax.Array, deviation: jax.Array, truth: jax.Array) -> Quality:
    """What `moments` returned against the true gradient."""
    size, length = jnp.linalg.norm(mean), jnp.linalg.norm(truth)
    nothing = size < ZERO * length
    cosine = jnp.sum(mean * truth) / (jnp.where(nothing, 1, size) * length)
    bias = jnp.linalg.norm(mean - truth)
    return Quality(
        cosine=jnp.where(nothing, jnp.nan, cosine),
        size=size / length,
        bias=bias / length,
        deviation=deviation / length,
    )
