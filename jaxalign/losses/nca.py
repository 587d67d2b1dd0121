"""Noise contrastive alignment: the level of both rewards counts, not only their difference."""

import jax

from jaxalign.batches.preferences import PairLogps
from jaxalign.losses.declarations import PAIRED, Loss
from jaxalign.losses.dpo import implicit_rewards

__all__ = (
    "NCA_PAIR",
    "nca_pair_loss",
)


def nca_pair_loss(policy: PairLogps, reference: PairLogps, *, beta: float) -> jax.Array:
    """Noise contrastive estimation with two responses, the chosen one the datum.

      L = -log sigmoid(r_chosen) - (log sigmoid(-r_chosen) + log sigmoid(-r_rejected)) / 2

    with r = beta log(pi / pi_ref). The chosen response does not become less likely, as under DPO.

    Args:
      policy: `[B]` nats a side, summed over the response.
      reference: the same under the frozen reference; gets no gradient.
      beta: reward units per nat, above 0.

    Returns:
      `[B]` nats; 2 log 2 where policy and reference agree.

    Raises:
      AssertionError: the shapes differ.
      ValueError: a number outside its range.

    When: the likelihood of good responses falls under DPO.
    TRL: `loss_type="nca_pair"`.
    Source: Chen et al. 2024, https://arxiv.org/abs/2402.05369, the NCA loss for two responses.

    >>> import jax.numpy as jnp
    >>> pair = PairLogps(chosen=jnp.array([-1.0]), rejected=jnp.array([-2.0]))
    >>> print(nca_pair_loss(pair, pair, beta=0.1).round(4))  # 2 log 2
    [1.3863]
    """
    rewards = implicit_rewards(policy, reference, beta=beta)
    noise = jax.nn.softplus(rewards.chosen) + jax.nn.softplus(rewards.rejected)
    return jax.nn.softplus(-rewards.chosen) + noise / 2


NCA_PAIR = Loss(name="nca_pair", kind=PAIRED, function=nca_pair_loss, hyperparameters={"beta": 0.1})
