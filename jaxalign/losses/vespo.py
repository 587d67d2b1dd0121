"""Variational sequence-level soft policy optimization: a smooth weight for each response."""

import jax
import jax.numpy as jnp

from jaxalign.losses.aggregation import TOKEN_MEAN
from jaxalign.losses.group_methods import GroupMethod, Surrogate
from jaxalign.losses.grpo import each_token
from jaxalign.losses.reinforce import reinforce_loss
from jaxalign.numerics.arguments import assert_rank, assert_same_shape, flags
from jaxalign.numerics.masking import masked_sum
from jaxalign.numerics.precision import saturating_exp, widen

__all__ = (
    "VESPO",
    "vespo_weights",
)


def vespo_weights(
    logps: jax.Array,
    behaviour_logps: jax.Array,
    mask: jax.Array,
    advantages: jax.Array,
    *,
    positive: tuple[float, float] = (2.0, 3.0),
    negative: tuple[float, float] = (3.0, 2.0),
) -> jax.Array:
    """Weights of whole responses that vanish for unlikely and for too likely ones.

      phi(w) = w^k exp(lambda (1 - w)),  w = prod_t pi(y_t) / pi_behaviour(y_t)

    The loss is `reinforce_loss(logps, phi A)`, averaged over tokens. No gradient.

    Args:
      logps: `[B, T]` nats under the policy that is trained.
      behaviour_logps: `[B, T]` under the policy that acted; get no gradient.
      mask: `[B, T]` bool, true on response tokens.
      advantages: `[B]`; their sign chooses k and lambda.
      positive, negative: (k, lambda) for advantages of at least 0, and below.

    Returns:
      `[B]`, 1 where w is 1.

    Raises:
      AssertionError: the shapes do not fit, or the mask holds real numbers.
      ValueError: a number outside its range.

    When: samples are old, or come from another engine.
    TRL: `loss_type="vespo"`.
    Source: 2026, https://arxiv.org/abs/2602.10693 (VESPO).

    >>> zero, mask = jnp.zeros((1, 2)), jnp.ones((1, 2), bool)
    >>> vespo_weights(zero, zero, mask, jnp.array([2.0])).tolist()
    [1.0]
    """
    assert_rank(2, logps=logps)
    assert_rank(1, advantages=advantages)
    assert_same_shape(logps=logps, behaviour_logps=behaviour_logps, mask=mask)
    mask = flags(mask=mask)
    assert_same_shape(axes=1, logps=logps, advantages=advantages)
    logps, behaviour_logps, advantages = widen(logps, behaviour_logps, advantages)
    log_w = masked_sum(logps - behaviour_logps, mask, axis=1)
    good = advantages >= 0
    k, rate = (jnp.where(good, *pair) for pair in zip(positive, negative, strict=True))
    return jax.lax.stop_gradient(saturating_exp(rate + k * log_w - rate * saturating_exp(log_w)))


def smooth_weight(
    logps: jax.Array,
    behaviour_logps: jax.Array,
    mask: jax.Array,
    advantages: jax.Array,
    *,
    positive: tuple[float, float] = (2.0, 3.0),
    negative: tuple[float, float] = (3.0, 2.0),
) -> jax.Array:
    """`reinforce_loss` with the advantage times `vespo_weights`: `[B, T]`."""
    shapes = {"positive": positive, "negative": negative}
    weights = vespo_weights(logps, behaviour_logps, mask, advantages, **shapes)
    return reinforce_loss(logps, each_token(weights * advantages, logps))


VESPO = GroupMethod(
    name="vespo",
    surrogate=Surrogate(losses=smooth_weight, formula=vespo_weights, one_advantage=True),
    aggregation=TOKEN_MEAN,
)
