"""Efficient exact optimization: the reverse KL to the distribution of preferences."""

import math

import jax

from jaxalign.batches.preferences import PairLogps
from jaxalign.losses.declarations import PAIRED, Loss
from jaxalign.losses.dpo import implicit_rewards
from jaxalign.numerics.arguments import assert_range
from jaxalign.numerics.bounds import POSITIVE_FLIP_PROBABILITY

__all__ = (
    "EXO_PAIR",
    "exo_pair_loss",
)


def exo_pair_loss(
    policy: PairLogps, reference: PairLogps, *, beta: float, label_smoothing: float
) -> jax.Array:
    """KL from the policy's preference between two responses to the (smoothed) label.

      L = p log(p / (1 - e)) + (1 - p) log((1 - p) / e),  p = sigmoid(r_chosen - r_rejected)

    with r = beta log(pi / pi_ref) and e = `label_smoothing`; DPO is the same KL, turned round.

    Args:
      policy: `[B]` nats a side, summed over the response.
      reference: the same under the frozen reference; gets no gradient.
      beta: reward units per nat, above 0.
      label_smoothing: e, in (0, 0.5): a certain label makes the loss infinite. 0.001 is usual.

    Returns:
      `[B]` nats, at least 0.

    Raises:
      AssertionError: the shapes differ.
      ValueError: a number outside its range.

    When: the policy should seek the mode of the preferences, as PPO does.
    TRL: `loss_type="exo_pair"`.
    Source: Ji et al. 2024, https://arxiv.org/abs/2402.00856, Eq. 16 for two responses.

    >>> import jax.numpy as jnp
    >>> pair = PairLogps(chosen=jnp.array([-1.0]), rejected=jnp.array([-2.0]))
    >>> print(f"{exo_pair_loss(pair, pair, beta=0.1, label_smoothing=0.2)[0]:.4f}")  # log 1.25
    0.2231
    """
    assert_range(POSITIVE_FLIP_PROBABILITY, label_smoothing=label_smoothing)
    rewards = implicit_rewards(policy, reference, beta=beta)
    margin = rewards.chosen - rewards.rejected
    right, flipped = -jax.nn.softplus(-margin), -jax.nn.softplus(margin)
    first = jax.nn.sigmoid(margin) * (right - math.log1p(-label_smoothing))
    return first + jax.nn.sigmoid(-margin) * (flipped - math.log(label_smoothing))


EXO_PAIR = Loss(
    name="exo_pair",
    kind=PAIRED,
    function=exo_pair_loss,
    hyperparameters={"beta": 0.1, "label_smoothing": 1e-3},
)
