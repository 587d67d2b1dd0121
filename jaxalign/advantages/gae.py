"""Advantages and per-step rewards.

Step t of a row is a decision where `mask` is true. Masked steps in between (observation tokens,
say) are skipped: the step "after" a decision is the next unmasked one, and nothing of a masked step
reaches any result.
"""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from jaxalign.precision import widen

Recurrence = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


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
      AssertionError: the shapes differ.
      ValueError: truncations without final_values.

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
    flags = (terminations, truncations, final_values, bootstrap_values)
    return _gae(recurrence_scan, rewards, values, mask, gamma, gae_lambda, flags)


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
    flags = (terminations, truncations, final_values, bootstrap_values)
    return _gae(associative_recurrence, rewards, values, mask, gamma, gae_lambda, flags)


def _gae(recurrence: Recurrence, rewards, values, mask, gamma, gae_lambda, flags):
    terminations, truncations, final_values, bootstrap_values = flags
    present = [x for x in flags[:3] if x is not None]
    chex.assert_equal_shape([rewards, values, mask, *present])
    chex.assert_rank(rewards, 2)
    if truncations is not None and final_values is None:
        raise ValueError(
            "truncations need final_values, the values of the observations they cut at"
        )
    rewards, values = widen(jnp.where(mask, rewards, 0), jnp.where(mask, values, 0))
    terminations = mask & False if terminations is None else terminations
    truncations = mask & False if truncations is None else truncations
    final_values = values if final_values is None else final_values
    after_last = jnp.zeros_like(values[:, 0])
    if bootstrap_values is not None:
        chex.assert_equal_shape([bootstrap_values, after_last])
        after_last = bootstrap_values.astype(values.dtype)

    next_values = next_unmasked(recurrence, values, mask, after_last)
    next_values = jnp.where(truncations, final_values.astype(values.dtype), next_values)
    next_values = jnp.where(terminations, 0, next_values)
    deltas = jnp.where(mask, rewards + gamma * next_values - values, 0)
    decays = jnp.where(terminations | truncations, 0, gamma * gae_lambda)
    decays = jnp.where(mask, decays, 1).astype(values.dtype)
    advantages = jnp.where(mask, recurrence(decays, deltas, jnp.zeros_like(after_last)), 0)
    return advantages, advantages + values


def next_unmasked(recurrence: Recurrence, values, mask, after_last):
    """Entry t: the value at the first unmasked step after t, or `after_last` if there is none."""
    from_here = recurrence((~mask).astype(values.dtype), values, after_last)
    return jnp.concatenate([from_here[:, 1:], after_last[:, None]], axis=1)


def recurrence_scan(factors: jax.Array, terms: jax.Array, last: jax.Array) -> jax.Array:
    """x_t = terms_t + factors_t x_{t+1}, x_T = last, one step at a time; arrays are `[B, T]`."""

    def step(after, now):
        x = now[1] + now[0] * after
        return x, x

    last = last + jnp.zeros_like(terms[:, 0])  # varying over the same mapped axes as the terms
    _, xs = jax.lax.scan(step, last, (factors.T, terms.T), reverse=True)
    return xs.T


def associative_recurrence(factors: jax.Array, terms: jax.Array, last: jax.Array) -> jax.Array:
    """`recurrence_scan` as a parallel prefix of the affine maps x -> term + factor x."""

    def compose(later, earlier):
        return later[0] * earlier[0], earlier[1] + earlier[0] * later[1]

    maps = jax.lax.associative_scan(compose, (factors, terms), reverse=True, axis=1)
    return maps[1] + maps[0] * last[:, None]
