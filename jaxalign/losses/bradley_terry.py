"""Reward modelling from comparisons."""

import jax

from jaxalign.losses.declarations import COMPARISONS, Loss
from jaxalign.numerics.arguments import assert_same_shape
from jaxalign.numerics.precision import widen

__all__ = (
    "BRADLEY_TERRY",
    "bradley_terry_loss",
    "centering_penalty",
)


def bradley_terry_loss(differences: jax.Array, *, margins: float | jax.Array = 0.0) -> jax.Array:
    """Negative log-likelihood of a preference under the Bradley-Terry model.

      L = -log sigmoid(s_chosen - s_rejected - margin)

    Args:
      differences: `[...]`, reward units, the chosen score minus the rejected one.
      margins: by how much the chosen one should win; a number or `[...]`, reward units.

    Returns:
      `[...]` nats.

    Raises:
      AssertionError: margins are an array of another shape.

    When: a reward model from comparisons; margins where people said by how much.
    TRL: `RewardTrainer`, column `margin`.
    Source: Ouyang et al. 2022, https://arxiv.org/abs/2203.02155, Eq. 1; margin: Touvron et al.
      2023, https://arxiv.org/abs/2307.09288, Eq. 2.

    >>> import jax.numpy as jnp
    >>> bradley_terry_loss(jnp.array([1e4, -1e4])).tolist()
    [0.0, 10000.0]
    >>> print(bradley_terry_loss(jnp.array([0.5]), margins=0.5).round(4))  # log 2
    [0.6931]
    """
    differences, minimum = widen(differences, margins)
    if minimum.ndim:
        assert_same_shape(differences=differences, minimum=minimum)
    return jax.nn.softplus(minimum - differences)


def centering_penalty(chosen: jax.Array, rejected: jax.Array) -> jax.Array:
    """Penalty that holds scores near 0, which the Bradley-Terry loss leaves undetermined.

      L = (s_chosen + s_rejected)^2

    Args:
      chosen, rejected: `[...]` scores, reward units.

    Returns:
      `[...]`, squared reward units; add it times a small coefficient (0.01).

    Raises:
      AssertionError: the shapes differ.

    When: scores of several reward models, or of several runs, are compared or added.
    TRL: `center_rewards_coefficient`.
    Source: Eisenstein et al. 2023, https://arxiv.org/abs/2312.09244, the regulariser of their
      reward model loss.

    >>> import jax.numpy as jnp
    >>> centering_penalty(jnp.array([3.0, 1.0]), jnp.array([-1.0, -1.0])).tolist()
    [4.0, 0.0]
    """
    assert_same_shape(chosen=chosen, rejected=rejected)
    chosen, rejected = widen(chosen, rejected)
    return (chosen + rejected) ** 2


BRADLEY_TERRY = Loss(name="bradley_terry", kind=COMPARISONS, function=bradley_terry_loss)
