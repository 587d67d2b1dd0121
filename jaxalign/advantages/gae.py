"""Generalized advantage estimates.

Step t of a row is a decision where `mask` is true. Masked steps in between (observation tokens,
say) are skipped: the step "after" a decision is the next unmasked one, and nothing of a masked step
reaches any result.
"""

import jax
import jax.numpy as jnp

from jaxalign.advantages.episodes import (
    Recurrence,
    associative_recurrence,
    episode_ends,
    recurrence_scan,
    values_after,
)
from jaxalign.numerics.arguments import assert_range, assert_same_shape, flags
from jaxalign.numerics.bounds import SHARE
from jaxalign.numerics.precision import widen


def gae(
    rewards: jax.Array,
    values: jax.Array,
    mask: jax.Array,
    *,
    gamma: float,
    gae_lambda: float,
    terminations: jax.Array | None = None,
    truncations: jax.Array | None = None,
    final_values: jax.Array | None = None,
    bootstrap_values: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Generalized advantage estimates and the value targets they imply.

      delta_t = r_t + gamma V'_t - V_t,  A_t = delta_t + gamma lambda A_{t'},  returns_t = A_t + V_t

    where t' is the next unmasked step and V'_t the value after step t:

      V(t')               inside an episode
      0                   where the episode terminated at t        (then A_{t'} counts 0)
      final_values[t]     where it was truncated at t              (then A_{t'} counts 0)
      bootstrap_values    after the last unmasked step; 0 if None

    A step marked both terminated and truncated is terminal. Flags on masked steps are ignored.

    Args:
      rewards: `[B, T]`, reward units; reward t is the one received for step t.
      values: `[B, T]`, reward units, V of what was seen before acting at t.
      mask: `[B, T]` bool, true where a decision was made.
      gamma: discount in [0, 1].
      gae_lambda: in [0, 1]; 0 is the one-step TD error, 1 the Monte-Carlo return less the value.
      terminations: `[B, T]` bool, the episode ended by itself at t; None: nowhere.
      truncations: `[B, T]` bool, the episode was cut at t by a limit; None: nowhere.
      final_values: `[B, T]`, V of the last observation of the episode cut at t; read where
        truncated.
      bootstrap_values: `[B]`, V of the observation after the last step, of a rollout cut in the
        middle of an episode; None: the end is terminal.

    Returns:
      Advantages and returns, both `[B, T]` in reward units, 0 where masked.

    Raises:
      AssertionError: the shapes differ, or the mask holds real numbers.
      ValueError: a number outside its range, or truncations without final_values.

    When: a value function is trained beside the policy.
    TRL: inside `PPOTrainer`, `lam`.
    Source: Schulman et al. 2016, https://arxiv.org/abs/1506.02438, Eqs. 11 to 16. Time limits:
      Pardo et al. 2018, https://arxiv.org/abs/1712.00378, sec. 3 (partial-episode
      bootstrapping).

    >>> rewards, values = jnp.array([[0.0, 1.0]]), jnp.array([[0.5, 0.5]])
    >>> mask = jnp.ones((1, 2), bool)
    >>> advantages, returns = gae(rewards, values, mask, gamma=1.0, gae_lambda=0.5)
    >>> advantages.tolist(), returns.tolist()  # delta = 0, 0.5
    ([[0.25, 0.5]], [[0.75, 1.0]])
    """
    return _gae(
        recurrence_scan,
        rewards,
        values,
        mask,
        gamma=gamma,
        gae_lambda=gae_lambda,
        terminations=terminations,
        truncations=truncations,
        final_values=final_values,
        bootstrap_values=bootstrap_values,
    )


def gae_associative(
    rewards: jax.Array,
    values: jax.Array,
    mask: jax.Array,
    *,
    gamma: float,
    gae_lambda: float,
    terminations: jax.Array | None = None,
    truncations: jax.Array | None = None,
    final_values: jax.Array | None = None,
    bootstrap_values: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """`gae` in O(log T) parallel steps, for long rollouts on accelerators; same arguments, numbers.

    The recurrence A_t = delta_t + c_t A_{t+1} composes affine maps, which is associative.

    When: thousands of steps on an accelerator.
    TRL: not there.
    Source: Blelloch 1990, Prefix Sums and Their Applications, sec. 1.4.1.

    >>> rewards, values = jnp.array([[0.0, 1.0]]), jnp.array([[0.5, 0.5]])
    >>> mask = jnp.ones((1, 2), bool)
    >>> gae_associative(rewards, values, mask, gamma=1.0, gae_lambda=0.5)[0].tolist()
    [[0.25, 0.5]]
    """
    return _gae(
        associative_recurrence,
        rewards,
        values,
        mask,
        gamma=gamma,
        gae_lambda=gae_lambda,
        terminations=terminations,
        truncations=truncations,
        final_values=final_values,
        bootstrap_values=bootstrap_values,
    )


def _gae(
    recurrence: Recurrence,
    rewards: jax.Array,
    values: jax.Array,
    mask: jax.Array,
    *,
    gamma: float,
    gae_lambda: float,
    **ends: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    """Advantages and returns by that recurrence; arguments of `gae`."""
    assert_range(SHARE, gamma=gamma, gae_lambda=gae_lambda)
    assert_same_shape(rewards=rewards, values=values, mask=mask)
    mask = flags(mask=mask)
    rewards, values = widen(rewards, jnp.where(mask, values, 0))
    limits = episode_ends(values, mask, **ends)
    following = values_after(values, mask, limits, recurrence)
    deltas = jnp.where(mask, rewards + gamma * following - values, 0)
    decays = jnp.where(limits.over, 0, gamma * gae_lambda)
    decays = jnp.where(mask, decays, 1).astype(values.dtype)
    nothing = jnp.zeros_like(limits.bootstrap_values)
    advantages = jnp.where(mask, recurrence(decays, deltas, nothing), 0)
    return advantages, advantages + values
