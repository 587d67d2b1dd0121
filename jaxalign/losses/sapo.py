"""Soft adaptive policy optimization: a gate in place of the clip."""

import jax
import jax.numpy as jnp

from jaxalign.losses.aggregation import SEQUENCE_MEAN
from jaxalign.losses.group_methods import GroupMethod, Surrogate
from jaxalign.losses.ppo import probability_ratios
from jaxalign.numerics.arguments import assert_range, assert_same_shape
from jaxalign.numerics.bounds import ABOVE_ZERO
from jaxalign.numerics.precision import widen

__all__ = (
    "SAPO",
    "sapo_loss",
)


def sapo_loss(
    logps: jax.Array,
    behaviour_logps: jax.Array,
    advantages: jax.Array,
    *,
    positive_temperature: float = 1.0,
    negative_temperature: float = 1.05,
) -> jax.Array:
    """The advantage times a sigmoid of the ratio, whose gradient fades away from ratio 1.

      L = -A (4 / tau) sigmoid(tau (r - 1)),  tau by the sign of A

    At r = 1 the gradient is that of PPO.

    Args:
      logps: `[...]` nats under the policy that is trained.
      behaviour_logps: `[...]` under the policy that acted; get no gradient.
      advantages: `[...]`; get no gradient.
      positive_temperature: tau where the advantage is above 0, above 0.
      negative_temperature: tau elsewhere, above 0; larger fades sooner.

    Returns:
      `[...]`, in the unit of the advantages.

    Raises:
      AssertionError: the shapes differ.
      ValueError: a number outside its range.

    When: the clip is too abrupt; mixtures of experts.
    TRL: `loss_type="sapo"`, `sapo_temperature_pos`, `sapo_temperature_neg`.
    Source: Gao et al. 2025, https://arxiv.org/abs/2511.20347, Eq. 6.

    >>> zero = jnp.zeros(1)
    >>> sapo_loss(zero, zero, jnp.array([1.0])).tolist()
    [-2.0]
    """
    assert_range(ABOVE_ZERO, positive_temperature=positive_temperature)
    assert_range(ABOVE_ZERO, negative_temperature=negative_temperature)
    ratios = probability_ratios(logps, behaviour_logps)
    assert_same_shape(ratios=ratios, advantages=advantages)
    advantages = jax.lax.stop_gradient(widen(advantages)[0])
    above = jnp.asarray(positive_temperature, ratios.dtype)
    temperatures = jnp.where(advantages > 0, above, negative_temperature)
    return -advantages * 4 / temperatures * jax.nn.sigmoid(temperatures * (ratios - 1))


def soft_gate(
    logps: jax.Array,
    behaviour_logps: jax.Array,
    mask: jax.Array,
    advantages: jax.Array,
    *,
    positive_temperature: float = 1.0,
    negative_temperature: float = 1.05,
) -> jax.Array:
    """`sapo_loss` as a surrogate: `[B, T]`."""
    del mask
    temperatures = {
        "positive_temperature": positive_temperature,
        "negative_temperature": negative_temperature,
    }
    return sapo_loss(logps, behaviour_logps, advantages, **temperatures)


SAPO = GroupMethod(
    name="sapo",
    surrogate=Surrogate(losses=soft_gate, formula=sapo_loss),
    aggregation=SEQUENCE_MEAN,
)
