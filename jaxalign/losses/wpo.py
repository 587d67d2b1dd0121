"""Weighted preference optimization: pairs count by how likely the policy is to write them."""

import jax
import jax.numpy as jnp

from jaxalign.numerics.arguments import assert_same_shape, flags
from jaxalign.numerics.masking import masked_sum
from jaxalign.numerics.precision import saturating_exp, widen

__all__ = ("wpo_weights",)


def wpo_weights(
    token_logps: jax.Array, mask: jax.Array, log_collisions: jax.Array | None = None
) -> jax.Array:
    """WPO weights: how much a response looks like one of the policy's own.

      w(x, y) = exp( (1 / |y|) sum_t (log pi(y_t) - log sum_v pi(v)^2) )

    The second term, the policy's chance to draw the same token twice, makes samples of the policy
    weigh about 1 each, however certain it is; without it, unlikely responses weigh next to nothing
    (0.05 at -2.9 nats a token). The weight of a pair is the product of both sides', which TRL
    and our trainers bound by 1. No gradient.

    Args:
      token_logps: `[B, T]` nats under the policy.
      mask: `[B, T]` bool, true on response tokens.
      log_collisions: `[B, T]` nats, log sum_v pi(v)^2 at each token; None leaves the term out.

    Returns:
      `[B]`, dimensionless; 1 for an empty response.

    Raises:
      AssertionError: the shapes differ, or the mask holds real numbers.

    When: pairs were written by other models than the one that is trained.
    TRL: `use_weighting=True` (with `log_collisions`).
    Source: Zhou et al. 2024, https://arxiv.org/abs/2406.11827, Eq. 2 and weight alignment.

    >>> logps, mask = jnp.log(jnp.array([[0.5, 0.5]])), jnp.ones((1, 2), bool)
    >>> wpo_weights(logps, mask).tolist()
    [0.5]
    """
    collisions = jnp.zeros_like(token_logps) if log_collisions is None else log_collisions
    assert_same_shape(token_logps=token_logps, mask=mask, log_collisions=collisions)
    mask = flags(mask=mask)
    token_logps, collisions = widen(token_logps, collisions)
    lengths = jnp.maximum(jnp.sum(mask, axis=1), 1)
    mean = masked_sum(token_logps - collisions, mask, axis=1) / lengths
    return jax.lax.stop_gradient(saturating_exp(mean))
