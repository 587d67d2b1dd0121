"""REINFORCE++: returns of every token, whitened over the whole batch."""

import jax

from jaxalign.advantages.declarations import AdvantageEstimator
from jaxalign.advantages.returns import discounted_returns
from jaxalign.numerics.masking import whiten


def reinforce_plus_plus_advantages(
    rewards: jax.Array, mask: jax.Array, *, gamma: float, axis_name: str | None = None
) -> jax.Array:
    """REINFORCE++ advantages: discounted returns, whitened over all tokens of the batch.

      A = whiten(G),  G_t = r_t + gamma G_{t+1}

    Args:
      rewards: `[B, T]`, reward units, from `shaped_rewards`: score and KL penalty.
      mask: `[B, T]` bool, true on response tokens.
      gamma: discount in [0, 1].
      axis_name: mapped axis that the rest of the batch is on, or None.

    Returns:
      `[B, T]`, dimensionless, 0 where masked.

    Raises:
      AssertionError: the shapes differ, or the mask holds real numbers.
      ValueError: a number outside its range.

    When: one response a prompt and no value model. For its baseline variant subtract the mean of
      the group from the scores first.
    TRL: not there.
    Source: Hu et al. 2025, https://arxiv.org/abs/2501.03262, the REINFORCE++ advantage.

    >>> import jax.numpy as jnp
    >>> rewards, mask = jnp.array([[0.0, 1.0], [0.0, 3.0]]), jnp.ones((2, 2), bool)
    >>> reinforce_plus_plus_advantages(rewards, mask, gamma=1.0).tolist()
    [[-1.0, -1.0], [1.0, 1.0]]
    """
    returns = discounted_returns(rewards, mask, gamma=gamma)
    return whiten(returns, mask, axis_name=axis_name)


WHITENED_RETURNS = AdvantageEstimator(
    name="reinforce_plus_plus",
    of_tokens=lambda rewards, mask, discount: reinforce_plus_plus_advantages(
        rewards, mask, gamma=discount
    ),
)
