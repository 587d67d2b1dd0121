"""Length-desensitised DPO: tokens beyond the shorter response count less."""

import chex
import jax
import jax.numpy as jnp

from jaxalign.numerics.precision import widen

__all__ = ("length_desensitised_logps",)


def length_desensitised_logps(
    token_logps: jax.Array, mask: jax.Array, public_lengths: jax.Array, *, alpha: float
) -> jax.Array:
    """Summed log-probabilities in which the excess of the longer response is discounted.

      log pi(y) = sum_{t <= n} log pi(y_t) + alpha sum_{t > n} log pi(y_t),  n = min(|y_c|, |y_r|)

    Give these to any paired loss, for policy and reference alike.

    Args:
      token_logps: `[B, T]` nats.
      mask: `[B, T]` bool, true on response tokens.
      public_lengths: `[B]` tokens of the shorter response of each pair.
      alpha: in [0, 1]; 1 is the plain sum, 0 leaves the excess out.

    Returns:
      `[B]` nats.

    Raises:
      AssertionError: the shapes do not fit.
      ValueError: alpha outside [0, 1].

    When: DPO makes texts longer than they should be.
    TRL: `ld_alpha`.
    Source: Liu et al. 2024, https://arxiv.org/abs/2409.06411, the modified likelihood.

    >>> logps, mask = jnp.array([[-1.0, -2.0, -4.0]]), jnp.ones((1, 3), bool)
    >>> length_desensitised_logps(logps, mask, jnp.array([2]), alpha=0.5).tolist()
    [-5.0]
    """
    chex.assert_rank(token_logps, 2)
    chex.assert_equal_shape([token_logps, mask])
    chex.assert_shape(public_lengths, token_logps.shape[:1])
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1], got {alpha}")
    (token_logps,) = widen(token_logps)
    public = jnp.cumsum(mask, axis=1) <= public_lengths[:, None]
    discounted = jnp.where(public, token_logps, alpha * token_logps)
    return jnp.sum(jnp.where(mask, discounted, 0), axis=1)
