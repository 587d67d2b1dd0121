"""Length-desensitised DPO: tokens beyond the shorter response count less."""

import jax
import jax.numpy as jnp

from jaxalign.numerics.arguments import assert_range, assert_rank, assert_same_shape, flags
from jaxalign.numerics.bounds import SHARE
from jaxalign.numerics.masking import masked_sum
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
      AssertionError: the shapes do not fit, or the mask holds real numbers.
      ValueError: a number outside its range.

    When: DPO makes texts longer than they should be.
    TRL: `ld_alpha`.
    Source: Liu et al. 2024, https://arxiv.org/abs/2409.06411, the modified likelihood.

    >>> logps, mask = jnp.array([[-1.0, -2.0, -4.0]]), jnp.ones((1, 3), bool)
    >>> length_desensitised_logps(logps, mask, jnp.array([2]), alpha=0.5).tolist()
    [-5.0]
    """
    assert_rank(2, token_logps=token_logps)
    assert_same_shape(token_logps=token_logps, mask=mask)
    assert_rank(1, public_lengths=public_lengths)
    assert_same_shape(axes=1, token_logps=token_logps, public_lengths=public_lengths)
    mask = flags(mask=mask)
    public = mask & public_tokens(mask, public_lengths)
    sums = (masked_sum(token_logps, counted, axis=1) for counted in (mask, public))
    return discounted_excess(*sums, alpha=alpha)


def public_tokens(mask: jax.Array, public_lengths: jax.Array) -> jax.Array:
    """Mask of the tokens up to the length of the shorter response of each pair: `[B, T]` bool, true
    before the first token too.

    Args:
      mask: `[B, T]` bool, true on response tokens.
      public_lengths: `[B]` tokens of the shorter response of each pair.
    """
    return jnp.cumsum(mask, axis=1) <= public_lengths[:, None]


def discounted_excess(logps: jax.Array, public_logps: jax.Array, *, alpha: float) -> jax.Array:
    """The same sums from those over all tokens and over the public ones: `[B]` nats.

    log pi(y) = alpha log pi(y_all) + (1 - alpha) log pi(y_public)
    """
    assert_range(SHARE, alpha=alpha)
    logps, public_logps = widen(logps, public_logps)
    return alpha * logps + (1 - alpha) * public_logps
