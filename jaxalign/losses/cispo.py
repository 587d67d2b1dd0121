"""Clipped importance sampling policy optimization: clip the weight, keep every gradient."""

import jax
import jax.numpy as jnp

from jaxalign.losses.aggregation import TOKEN_MEAN
from jaxalign.losses.group_methods import GroupMethod, Surrogate
from jaxalign.losses.ppo import probability_ratios
from jaxalign.numerics.arguments import assert_range, assert_same_shape
from jaxalign.numerics.bounds import NOT_NEGATIVE

__all__ = (
    "CISPO",
    "cispo_loss",
)


def cispo_loss(
    logps: jax.Array,
    behaviour_logps: jax.Array,
    advantages: jax.Array,
    *,
    highest: float,
    lowest: float = 0.0,
) -> jax.Array:
    """REINFORCE with a truncated importance weight that gets no gradient.

      L = -sg(clip(r, lowest, highest)) A log pi(a)

    where sg stops the gradient: unlike under PPO's clip, no token loses its gradient.

    Args:
      logps: `[...]` nats under the policy that is trained.
      behaviour_logps: `[...]` under the policy that acted; get no gradient.
      advantages: `[...]`; get no gradient.
      highest: cap of the ratio itself (not of its distance from 1), above `lowest`.
      lowest: floor of the ratio, at least 0.

    Returns:
      `[...]`, nats times the unit of the advantages.

    Raises:
      AssertionError: the shapes differ.
      ValueError: a number outside its range.

    When: rare tokens that matter are silenced by the clip.
    TRL: `loss_type="cispo"`, `epsilon_high` for `highest`.
    Source: MiniMax 2025, https://arxiv.org/abs/2506.13585, Eqs. 4 and 5.

    >>> logps = jnp.log(jnp.array([0.5]))
    >>> loss = cispo_loss(logps, logps - 3.0, jnp.array([1.0]), highest=2.0)
    >>> print(f"{loss[0]:.4f}")  # 2 log 2
    1.3863
    """
    assert_range(NOT_NEGATIVE, lowest=lowest)
    if not lowest < highest:
        raise ValueError(f"highest must be above lowest = {lowest}, got {highest}")
    ratios = probability_ratios(logps, behaviour_logps)
    assert_same_shape(ratios=ratios, advantages=advantages)
    weights = jnp.clip(ratios, lowest, highest) * advantages
    return -jax.lax.stop_gradient(weights) * logps


def capped_weight(
    logps: jax.Array,
    behaviour_logps: jax.Array,
    mask: jax.Array,
    advantages: jax.Array,
    *,
    clip_range: tuple[float, float],
) -> jax.Array:
    """`cispo_loss` with bounds from the distances to 1: `[B, T]`."""
    del mask
    lowest, highest = _bounds(clip_range)
    return cispo_loss(logps, behaviour_logps, advantages, highest=highest, lowest=lowest)


def weight_capped(
    logps: jax.Array,
    behaviour_logps: jax.Array,
    mask: jax.Array,
    advantages: jax.Array,
    *,
    clip_range: tuple[float, float],
) -> jax.Array:
    """Mask of the tokens whose weight `capped_weight` caps, `[B, T]` bool; they keep a gradient."""
    del mask, advantages
    lowest, highest = _bounds(clip_range)
    ratios = probability_ratios(logps, behaviour_logps)
    return (ratios < lowest) | (ratios > highest)


def _bounds(clip_range: tuple[float, float]) -> tuple[float, float]:
    low, high = clip_range
    return max(1 - low, 0.0), 1 + high


# Eqs. 4 and 5, no floor; ratios up to 5 as in ScaleRL, https://arxiv.org/abs/2510.13786 (the paper
# gives no number)
CISPO = GroupMethod(
    name="cispo",
    surrogate=Surrogate(losses=capped_weight, formula=cispo_loss, clipped=weight_capped),
    hyperparameters={"clip_range": (1.0, 4.0)},
    aggregation=TOKEN_MEAN,
)
