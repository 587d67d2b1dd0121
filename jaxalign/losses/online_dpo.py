"""Online preferences: two responses of the policy itself, ranked by a judge."""

import jax
import jax.numpy as jnp

from jaxalign.batches.preferences import PairLogps
from jaxalign.losses.declarations import ONLINE, Loss
from jaxalign.losses.dpo import dpo_loss
from jaxalign.numerics.arguments import assert_same_shape
from jaxalign.numerics.precision import rounding, widen

__all__ = (
    "ONLINE_DPO",
    "ranked",
)


def ranked(
    first: jax.Array, second: jax.Array, first_scores: jax.Array, second_scores: jax.Array
) -> tuple[PairLogps, jax.Array]:
    """Chosen and rejected of two responses, and the weight of the pair.

      chosen = the one with the larger score;  weight = 0 where the scores are equal, else 1

    Scores that differ by rounding alone (`precision.rounding`) are equal.

    Args:
      first, second: `[B]` nats, log-probabilities of the two responses (of policy or reference).
      first_scores, second_scores: `[B]` of the judge or reward model.

    Returns:
      `PairLogps` and `[B]` weights.

    Raises:
      AssertionError: the shapes differ.

    When: DPO, IPO or another paired loss on fresh samples.
    TRL: `OnlineDPOTrainer`.
    Source: Guo et al. 2024, https://arxiv.org/abs/2402.04792, Alg. 1.

    >>> pair, weights = ranked(jnp.array([-1.0]), jnp.array([-2.0]), jnp.zeros(1), jnp.ones(1))
    >>> pair.chosen.tolist(), weights.tolist()
    ([-2.0], [1.0])
    """
    assert_same_shape(
        first=first, second=second, first_scores=first_scores, second_scores=second_scores
    )
    first, second = widen(first, second)
    first_scores, second_scores = widen(first_scores, second_scores)
    wins = first_scores >= second_scores
    scale = jnp.maximum(jnp.abs(first_scores), jnp.abs(second_scores))
    tied = jnp.abs(first_scores - second_scores) <= rounding(scale)
    pair = PairLogps(chosen=jnp.where(wins, first, second), rejected=jnp.where(wins, second, first))
    return pair, jnp.where(tied, 0.0, 1.0)


# Or another loss on pairs that two log-probabilities a side determine, in place of DPO.
ONLINE_DPO = Loss(name="online_dpo", kind=ONLINE, function=dpo_loss, hyperparameters={"beta": 0.1})
