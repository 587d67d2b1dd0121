"""The loss that a language model discovered: logistic and exponential, blended."""

import jax

from jaxalign.batches.preferences import PairLogps
from jaxalign.losses.declarations import PAIRED, Loss
from jaxalign.losses.dpo import implicit_rewards
from jaxalign.numerics.arguments import assert_range
from jaxalign.numerics.bounds import ABOVE_ZERO, Positive
from jaxalign.numerics.precision import saturating_exp

__all__ = (
    "DISCOPOP",
    "discopop_loss",
)


def discopop_loss(
    policy: PairLogps, reference: PairLogps, *, beta: float, temperature: float = 0.05
) -> jax.Array:
    """The log-ratio modulated loss.

      L = (1 - w) (-log sigmoid(u)) + w exp(-u),  w = sigmoid(u / temperature)

    with u = r_chosen - r_rejected, r = beta log(pi / pi_ref). The product w exp(-u) is taken in
    logarithms, so that it stays finite where exp(-u) does not.

    Args:
      policy: `[B]` nats a side, summed over the response.
      reference: the same under the frozen reference; gets no gradient.
      beta: reward units per nat, above 0.
      temperature: width of the blend in reward units, above 0.

    Returns:
      `[B]`; (log 2 + 1) / 2 where policy and reference agree.

    Raises:
      AssertionError: the shapes differ.
      ValueError: a number outside its range.

    When: as an alternative to DPO with less weight on pairs that are told apart.
    TRL: `loss_type="discopop"`, `discopop_tau`.
    Source: Lu et al. 2024, https://arxiv.org/abs/2406.08414, Eq. 5.

    >>> import jax.numpy as jnp
    >>> pair = PairLogps(chosen=jnp.array([-1.0]), rejected=jnp.array([-2.0]))
    >>> print(discopop_loss(pair, pair, beta=0.1).round(4))
    [0.8466]
    """
    assert_range(ABOVE_ZERO, temperature=temperature)
    rewards = implicit_rewards(policy, reference, beta=beta)
    margin = rewards.chosen - rewards.rejected
    blend = margin / temperature
    logistic = jax.nn.sigmoid(-blend) * jax.nn.softplus(-margin)
    return logistic + saturating_exp(-margin - jax.nn.softplus(-blend))


def tempered_discopop_loss(
    policy: PairLogps, reference: PairLogps, *, beta: float, discopop_temperature: Positive = 0.05
) -> jax.Array:
    """`discopop_loss` with a name for its temperature that says whose it is: `[B]` nats.

    Args:
      policy, reference, beta: as in `discopop_loss`.
      discopop_temperature: temperature at which discopop goes over from one loss to the other,
        above 0.
    """
    return discopop_loss(policy, reference, beta=beta, temperature=discopop_temperature)


DISCOPOP = Loss(
    name="discopop",
    kind=PAIRED,
    function=tempered_discopop_loss,
    hyperparameters={"beta": 0.05},
    formula=discopop_loss,
)
