"""Metrics that objectives share."""

import jax

from jaxalign.batches.preferences import PairLogps
from jaxalign.diagnostics import concordance


def pair_metrics(policy: PairLogps, rewards: PairLogps) -> dict[str, jax.Array]:
    """Implicit rewards of each pair, their margin and whether it is right, and log-probabilities.

    Args:
      policy: `[B]` nats a side.
      rewards: `[B]` implicit rewards a side, as the loss compares them.

    Returns:
      `[B]` each.
    """
    margin = rewards.chosen - rewards.rejected
    return {
        "rewards/chosen": rewards.chosen,
        "rewards/rejected": rewards.rejected,
        "rewards/margin": margin,
        "rewards/accuracy": concordance(margin, 0.0),
        "logps/chosen": policy.chosen,
        "logps/rejected": policy.rejected,
    }
