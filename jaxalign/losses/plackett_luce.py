"""Rankings of more than two responses."""

from typing import cast

import jax
import jax.numpy as jnp

from jaxalign.losses.declarations import RANKINGS, Loss
from jaxalign.numerics.arguments import assert_rank, assert_same_shape, flags
from jaxalign.numerics.precision import widen

__all__ = ("PLACKETT_LUCE", "plackett_luce_loss")


def plackett_luce_loss(scores: jax.Array, mask: jax.Array) -> jax.Array:
    """Negative log-likelihood of a ranking: the best is chosen first, then the best of the rest.

      L = sum_k ( log sum_{j >= k} exp(s_j) - s_k )

    For two candidates it is the Bradley-Terry loss; on beta log(pi / pi_ref) it is DPO of rankings.

    Args:
      scores: `[B, K]`, reward units, the best candidate first.
      mask: `[B, K]` bool, false where a row has fewer candidates.

    Returns:
      `[B]` nats; 0 for a row of fewer than two candidates.

    Raises:
      AssertionError: the shapes differ, or the mask holds real numbers.

    When: people ranked several responses.
    TRL: not there.
    Source: Ouyang et al. 2022, https://arxiv.org/abs/2203.02155, for pairs; rankings: Rafailov et
      al. 2023, https://arxiv.org/abs/2305.18290, Eq. 18 (Plackett-Luce).

    >>> loss = plackett_luce_loss(jnp.zeros((1, 3)), jnp.ones((1, 3), bool))
    >>> print(f"{loss[0]:.4f}")  # log 3 + log 2
    1.7918
    """
    assert_rank(2, scores=scores)
    assert_same_shape(scores=scores, mask=mask)
    mask = flags(mask=mask)
    (scores,) = widen(scores)
    floor = cast(float, jnp.finfo(scores.dtype).min)
    among = jnp.where(mask, scores, floor)
    rest = jax.lax.cumlogsumexp(among, axis=1, reverse=True)
    return jnp.sum(jnp.where(mask, rest - scores, 0), axis=1)


PLACKETT_LUCE = Loss(name="plackett_luce", kind=RANKINGS, function=plackett_luce_loss)
