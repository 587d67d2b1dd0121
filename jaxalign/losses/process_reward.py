"""Rewards of single steps of a solution."""

import jax

from jaxalign.losses.declarations import STEPS, Loss
from jaxalign.numerics.arguments import assert_same_shape
from jaxalign.numerics.precision import widen

__all__ = ("PROCESS", "process_reward_loss")


def process_reward_loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Cross-entropy between the label of each step and the predicted chance that it is right.

      L_t = -y log sigmoid(s_t) - (1 - y) log sigmoid(-s_t)

    Args:
      logits: `[...]` scores, one a step (at its last token, say).
      labels: `[...]` in [0, 1]: right or wrong, or the share of continuations that end right.

    Returns:
      `[...]` nats; sum it over the mask of steps.

    Raises:
      AssertionError: the shapes differ.

    When: steps of a solution are labelled, by people or by roll-outs from them.
    TRL: `PRMTrainer` (two-class softmax of token logits).
    Source: Lightman et al. 2023, https://arxiv.org/abs/2305.20050; soft labels: Wang et al. 2023,
      https://arxiv.org/abs/2312.08935, their Eq. 4.

    >>> import jax.numpy as jnp
    >>> print(process_reward_loss(jnp.zeros(2), jnp.array([1.0, 0.5])).round(4))  # log 2
    [0.6931 0.6931]
    """
    assert_same_shape(logits=logits, labels=labels)
    logits, labels = widen(logits, labels)
    return labels * jax.nn.softplus(-logits) + (1 - labels) * jax.nn.softplus(logits)


PROCESS = Loss(name="process", kind=STEPS, function=process_reward_loss)
