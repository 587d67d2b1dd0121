"""Proximal Policy Optimization: clipped policy and value losses, their sum, what was clipped."""

import jax
import jax.numpy as jnp

from jaxalign.numerics.arguments import assert_range, assert_same_shape
from jaxalign.numerics.bounds import ABOVE_ZERO
from jaxalign.numerics.precision import saturating_exp, widen

__all__ = (
    "probability_ratios",
    "ppo_policy_loss",
    "ppo_policy_clipped",
    "ppo_value_loss",
    "ppo_value_clipped",
    "ppo_loss",
)

ClipRange = float | tuple[float, float]


def probability_ratios(logps: jax.Array, behaviour_logps: jax.Array) -> jax.Array:
    """Probability ratios of the trained policy and the one that acted.

      r = exp(log pi(a) - log pi_behaviour(a))

    Beyond 1.8e19 (float32) it goes on linearly in the log-ratio, so that it never overflows.

    Args:
      logps: `[...]` nats under the policy that is trained.
      behaviour_logps: `[...]` nats under the policy that acted; gets no gradient.

    Returns:
      `[...]`, dimensionless.

    Raises:
      AssertionError: the shapes differ.

    When: inside the losses, and for diagnostics.
    TRL: `coef_1`, `ratio`.
    Source: Schulman et al. 2017, https://arxiv.org/abs/1707.06347, Eq. 6 (r_t).

    >>> print(probability_ratios(jnp.log(jnp.array([0.5, 0.75])), jnp.log(jnp.array([0.5, 0.5]))))
    [1.  1.5]
    """
    assert_same_shape(logps=logps, behaviour_logps=behaviour_logps)
    logps, behaviour_logps = widen(logps, behaviour_logps)
    return saturating_exp(logps - jax.lax.stop_gradient(behaviour_logps))


def ppo_policy_loss(
    logps: jax.Array,
    behaviour_logps: jax.Array,
    advantages: jax.Array,
    *,
    clip_range: ClipRange,
    dual_clip: float | None = None,
) -> jax.Array:
    """The clipped surrogate loss: no gain from moving the ratio out of the clip range.

      L = -min(r A, clip(r, 1 - low, 1 + high) A)
        = -A min(r, 1 + high)  for A >= 0,    -A max(r, 1 - low)  for A < 0

    With `dual_clip` c, the ratio is also capped at c where A < 0:  L = -max(min(...), c A).

    Args:
      logps: `[...]` nats under the policy that is trained.
      behaviour_logps: `[...]` nats under the policy that acted; gets no gradient.
      advantages: `[...]`; get no gradient.
      clip_range: above 0; one number for both sides or (low, high).
      dual_clip: above 1 + high (3 is usual), or None for the plain loss.

    Returns:
      `[...]`, in the unit of the advantages.

    Raises:
      AssertionError: the shapes differ.
      ValueError: a clip range that is not positive, or a dual clip inside it.

    When: several updates from the same samples.
    TRL: `PPOTrainer`; `epsilon`, `epsilon_high`, and `delta` for `dual_clip`.
    Source: Schulman et al. 2017, https://arxiv.org/abs/1707.06347, Eq. 7; asymmetric: Yu et al.
      2025, https://arxiv.org/abs/2503.14476, Eq. 10 (clip-higher); dual clip: Ye et al. 2020,
      https://arxiv.org/abs/1912.09729, the dual-clip objective.

    >>> logps = jnp.log(jnp.array([1.5, 1.5, 0.5]))
    >>> advantages = jnp.array([1.0, -1.0, 1.0])
    >>> ppo_policy_loss(logps, jnp.zeros(3), advantages, clip_range=0.25).tolist()
    [-1.25, 1.5, -0.5]
    """
    low, high = _bounds(clip_range, dual_clip)
    ratios = probability_ratios(logps, behaviour_logps)
    assert_same_shape(ratios=ratios, advantages=advantages)
    advantages = jax.lax.stop_gradient(advantages)
    clipped = jnp.where(advantages < 0, jnp.maximum(ratios, 1 - low), jnp.minimum(ratios, 1 + high))
    if dual_clip is not None:  # above 1 + high, so that it acts where the advantage is negative
        clipped = jnp.minimum(clipped, dual_clip)
    return -advantages * clipped


def ppo_policy_clipped(
    logps: jax.Array,
    behaviour_logps: jax.Array,
    advantages: jax.Array,
    *,
    clip_range: ClipRange,
    dual_clip: float | None = None,
) -> jax.Array:
    """Mask of the steps where `ppo_policy_loss` is clipped; its mean is `ppo/clip_fraction`.

    Args:
      logps, behaviour_logps, advantages, clip_range, dual_clip: as in `ppo_policy_loss`.

    Returns:
      `[...]` bool.

    Raises:
      AssertionError: the shapes differ.
      ValueError: a clip range that is not positive, or a dual clip inside it.

    When: to see how much of a batch the clip silences.
    TRL: `clip_ratio/*`, `policy/clipfrac_avg`.
    Source: Schulman et al. 2017, https://arxiv.org/abs/1707.06347, Eq. 7.

    >>> logps, advantages = jnp.log(jnp.array([1.5, 1.5])), jnp.array([1.0, -1.0])
    >>> ppo_policy_clipped(logps, jnp.zeros(2), advantages, clip_range=0.2).tolist()
    [True, False]
    """
    low, high = _bounds(clip_range, dual_clip)
    ratios = probability_ratios(logps, behaviour_logps)
    assert_same_shape(ratios=ratios, advantages=advantages)
    cap = jnp.inf if dual_clip is None else dual_clip
    outside = jnp.where(advantages < 0, (ratios < 1 - low) | (ratios > cap), ratios > 1 + high)
    return outside & (advantages != 0)


def _bounds(clip_range: ClipRange, dual_clip: float | None) -> tuple[float, float]:
    assert_range(ABOVE_ZERO, clip_range=clip_range)
    low, high = clip_range if isinstance(clip_range, tuple) else (clip_range, clip_range)
    if dual_clip is not None and dual_clip <= 1 + high:
        raise ValueError(f"dual_clip must be above 1 + clip range = {1 + high}, got {dual_clip}")
    return low, high


def ppo_value_loss(
    values: jax.Array,
    behaviour_values: jax.Array,
    returns: jax.Array,
    *,
    value_clip_range: float | None,
) -> jax.Array:
    """Squared error of the values, pessimistic about moves away from the old prediction.

      L = max((V - R)^2, (clip(V, V_old - c, V_old + c) - R)^2) / 2,  without clipping (V - R)^2 / 2

    Args:
      values: `[...]`, reward units, of the value function that is trained.
      behaviour_values: `[...]`, predictions at the time of acting; get no gradient.
      returns: `[...]`, targets; get no gradient.
      value_clip_range: c in reward units, or None for the plain squared error.

    Returns:
      `[...]`, squared reward units.

    Raises:
      AssertionError: the shapes differ.
      ValueError: a clip range that is not positive.

    When: a value head is trained beside the policy.
    TRL: `PPOTrainer`, `cliprange_value`.
    Source: Schulman et al. 2017, https://arxiv.org/abs/1707.06347, Eq. 9 (plain, there without
      1/2); clipping and 1/2: Ziegler et al. 2019, https://arxiv.org/abs/1909.08593, published code.

    >>> values, old, returns = jnp.array([2.0]), jnp.array([0.0]), jnp.array([3.0])
    >>> ppo_value_loss(values, old, returns, value_clip_range=0.5).tolist()  # max(1, 2.5^2) / 2
    [3.125]
    >>> ppo_value_loss(values, old, returns, value_clip_range=None).tolist()
    [0.5]
    """
    errors, clipped_errors = _value_errors(values, behaviour_values, returns, value_clip_range)
    return jnp.maximum(errors**2, clipped_errors**2) / 2


def ppo_value_clipped(
    values: jax.Array,
    behaviour_values: jax.Array,
    returns: jax.Array,
    *,
    value_clip_range: float | None,
) -> jax.Array:
    """Mask of the steps where `ppo_value_loss` is clipped; its mean is `ppo/value_clip_fraction`.

    Args:
      values, behaviour_values, returns, value_clip_range: as in `ppo_value_loss`.

    Returns:
      `[...]` bool.

    Raises:
      AssertionError: the shapes differ.
      ValueError: a clip range that is not positive.

    When: to see how much of a batch the value clip silences.
    TRL: `val/clipfrac_avg`.
    Source: Ziegler et al. 2019, https://arxiv.org/abs/1909.08593, published code.

    >>> values, old, returns = jnp.array([2.0, 0.2]), jnp.zeros(2), jnp.array([3.0, 3.0])
    >>> ppo_value_clipped(values, old, returns, value_clip_range=0.5).tolist()
    [True, False]
    """
    errors, clipped_errors = _value_errors(values, behaviour_values, returns, value_clip_range)
    return clipped_errors**2 > errors**2


def _value_errors(
    values: jax.Array,
    behaviour_values: jax.Array,
    returns: jax.Array,
    value_clip_range: float | None,
) -> tuple[jax.Array, jax.Array]:
    """Errors of the values, and of the values clipped around the earlier ones."""
    assert_same_shape(values=values, behaviour_values=behaviour_values, returns=returns)
    values, old, returns = widen(values, behaviour_values, returns)
    old, returns = jax.lax.stop_gradient((old, returns))
    if value_clip_range is None:
        return values - returns, values - returns
    assert_range(ABOVE_ZERO, value_clip_range=value_clip_range)
    clipped = jnp.clip(values, old - value_clip_range, old + value_clip_range)
    return values - returns, clipped - returns


def ppo_loss(
    policy_losses: jax.Array,
    value_losses: jax.Array,
    entropies: jax.Array,
    *,
    value_coef: float,
    entropy_coef: float,
) -> jax.Array:
    """The whole PPO loss of each step: policy, value, and a bonus for entropy.

      L = L_policy + value_coef L_value - entropy_coef H

    Args:
      policy_losses: `[...]` from `ppo_policy_loss`.
      value_losses: `[...]` from `ppo_value_loss`.
      entropies: `[...]` nats, of the policy that is trained.
      value_coef, entropy_coef: weights of the two.

    Returns:
      `[...]`.

    Raises:
      AssertionError: the shapes differ.

    When: policy and values share a trunk.
    TRL: `vf_coef`.
    Source: Schulman et al. 2017, https://arxiv.org/abs/1707.06347, Eq. 9.

    >>> one = jnp.ones(1)
    >>> ppo_loss(one, one, one, value_coef=0.5, entropy_coef=0.25).tolist()
    [1.25]
    """
    assert_same_shape(policy_losses=policy_losses, value_losses=value_losses, entropies=entropies)
    policy_losses, value_losses, entropies = widen(policy_losses, value_losses, entropies)
    return policy_losses + value_coef * value_losses - entropy_coef * entropies
