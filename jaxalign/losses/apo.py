"""Anchored preference optimization: a direction for each side of a pair."""

import jax
import jax.numpy as jnp

from jaxalign.batches.preferences import PairLogps
from jaxalign.losses.declarations import PAIRED, UNPAIRED, Loss
from jaxalign.losses.dpo import implicit_rewards
from jaxalign.numerics.arguments import assert_range, assert_same_shape, flags
from jaxalign.numerics.bounds import ABOVE_ZERO
from jaxalign.numerics.precision import widen

__all__ = (
    "APO_ZERO",
    "APO_DOWN",
    "APO_ZERO_UNPAIRED",
    "apo_zero_loss",
    "apo_down_loss",
    "apo_zero_unpaired_loss",
)


def apo_zero_loss(policy: PairLogps, reference: PairLogps, *, beta: float) -> jax.Array:
    """APO-zero: a loss that makes chosen responses likelier, rejected ones less likely.

      L = 1 - sigmoid(r_chosen) + sigmoid(r_rejected),  r = beta log(pi / pi_ref)

    Args:
      policy: `[B]` nats a side, summed over the response.
      reference: the same under the frozen reference; gets no gradient.
      beta: reward units per nat, above 0.

    Returns:
      `[B]` in [0, 2]; 1 where policy and reference agree.

    Raises:
      AssertionError: the shapes differ.
      ValueError: a number outside its range.

    When: the chosen responses are better than what the model writes.
    TRL: `loss_type="apo_zero"`.
    Source: D'Oosterlinck et al. 2024, https://arxiv.org/abs/2408.06266, Eq. 7.

    >>> import jax.numpy as jnp
    >>> pair = PairLogps(chosen=jnp.array([-1.0]), rejected=jnp.array([-2.0]))
    >>> apo_zero_loss(pair, pair, beta=0.1).tolist()
    [1.0]
    """
    rewards = implicit_rewards(policy, reference, beta=beta)
    return jax.nn.sigmoid(-rewards.chosen) + jax.nn.sigmoid(rewards.rejected)


def apo_down_loss(policy: PairLogps, reference: PairLogps, *, beta: float) -> jax.Array:
    """APO-down: a loss that makes both responses less likely, the rejected one more so.

      L = sigmoid(r_chosen) + 1 - sigmoid(r_chosen - r_rejected),  r = beta log(pi / pi_ref)

    Args:
      policy: `[B]` nats a side, summed over the response.
      reference: the same under the frozen reference; gets no gradient.
      beta: reward units per nat, above 0.

    Returns:
      `[B]` in [0, 2]; 1 where policy and reference agree.

    Raises:
      AssertionError: the shapes differ.
      ValueError: a number outside its range.

    When: the model already writes better than the chosen responses.
    TRL: `loss_type="apo_down"`.
    Source: D'Oosterlinck et al. 2024, https://arxiv.org/abs/2408.06266, Eq. 8.

    >>> import jax.numpy as jnp
    >>> pair = PairLogps(chosen=jnp.array([-1.0]), rejected=jnp.array([-2.0]))
    >>> apo_down_loss(pair, pair, beta=0.1).tolist()
    [1.0]
    """
    rewards = implicit_rewards(policy, reference, beta=beta)
    margin = rewards.chosen - rewards.rejected
    return jax.nn.sigmoid(rewards.chosen) + jax.nn.sigmoid(-margin)


def apo_zero_unpaired_loss(
    policy_logps: jax.Array, reference_logps: jax.Array, labels: jax.Array, *, beta: float
) -> jax.Array:
    """APO-zero where each response has a label and no partner.

      L = 1 - sigmoid(r) for good responses,  sigmoid(r) for bad ones,  r = beta log(pi / pi_ref)

    Args:
      policy_logps: `[B]` nats, summed over the response.
      reference_logps: `[B]`, under the frozen reference; get no gradient.
      labels: `[B]` bool, true where the response is good.
      beta: reward units per nat, above 0.

    Returns:
      `[B]` in [0, 1]; 1/2 where policy and reference agree.

    Raises:
      AssertionError: the shapes differ, or labels are real numbers.
      ValueError: a number outside its range.

    When: as `kto_loss`, without its estimate of the KL.
    TRL: `loss_type="apo_zero_unpaired"` of `KTOTrainer`.
    Source: D'Oosterlinck et al. 2024, https://arxiv.org/abs/2408.06266, Eq. 7, each side by itself.

    >>> zero = jnp.zeros(2)
    >>> apo_zero_unpaired_loss(zero, zero, jnp.array([True, False]), beta=0.1).tolist()
    [0.5, 0.5]
    """
    assert_range(ABOVE_ZERO, beta=beta)
    assert_same_shape(policy_logps=policy_logps, reference_logps=reference_logps, labels=labels)
    labels = flags(labels=labels)
    policy_logps, reference_logps = widen(policy_logps, reference_logps)
    rewards = beta * (policy_logps - jax.lax.stop_gradient(reference_logps))
    return jax.nn.sigmoid(jnp.where(labels, -rewards, rewards))


APO_ZERO = Loss(name="apo_zero", kind=PAIRED, function=apo_zero_loss, hyperparameters={"beta": 0.1})
APO_DOWN = Loss(name="apo_down", kind=PAIRED, function=apo_down_loss, hyperparameters={"beta": 0.1})
APO_ZERO_UNPAIRED = Loss(
    name="apo_zero_unpaired",
    kind=UNPAIRED,
    function=apo_zero_unpaired_loss,
    hyperparameters={"beta": 0.1},
)
