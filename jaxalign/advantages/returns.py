"""Value targets: discounted, lambda and n-step returns."""

from typing import cast

import jax
import jax.numpy as jnp

from jaxalign.advantages.episodes import episode_ends, recurrence_scan, values_after
from jaxalign.advantages.gae import gae
from jaxalign.numerics.arguments import assert_range, assert_same_shape, flags
from jaxalign.numerics.bounds import COUNT, SHARE
from jaxalign.numerics.precision import widen


def discounted_returns(
    rewards: jax.Array,
    mask: jax.Array,
    *,
    gamma: float,
    **ends: jax.Array | None,
) -> jax.Array:
    """Discounted returns: the sum of all later rewards (Monte Carlo).

      G_t = r_t + gamma G_{t'},  t' the next unmasked step

    Args:
      rewards: `[B, T]`, reward units.
      mask: `[B, T]` bool, true where a decision was made.
      gamma: discount in [0, 1].
      ends: `terminations`, `truncations`, `final_values`, `bootstrap_values` as in `gae`.

    Returns:
      `[B, T]`, reward units, 0 where masked.

    Raises:
      AssertionError: the shapes differ, or the mask holds real numbers.
      ValueError: a number outside its range, or truncations without final_values.

    When: REINFORCE with any baseline; targets without a value function.
    TRL: not there.
    Source: Sutton and Barto 2018, http://incompleteideas.net/book/the-book-2nd.html, Eq. 3.9.

    >>> mask = jnp.ones((1, 2), bool)
    >>> discounted_returns(jnp.array([[1.0, 2.0]]), mask, gamma=0.5).tolist()
    [[2.0, 2.0]]
    """
    return gae(rewards, jnp.zeros_like(rewards), mask, gamma=gamma, gae_lambda=1.0, **ends)[1]


def lambda_returns(
    rewards: jax.Array,
    values: jax.Array,
    mask: jax.Array,
    *,
    gamma: float,
    trace_lambda: float,
    **ends: jax.Array | None,
) -> jax.Array:
    """Lambda returns: mixtures of the n-step returns of all n.

      G_t = r_t + gamma ((1 - lambda) V_{t'} + lambda G_{t'}),  t' the next unmasked step

    Args:
      rewards, values, mask: `[B, T]` as in `gae`.
      gamma: discount in [0, 1].
      trace_lambda: in [0, 1]; 0 is one step, 1 all of them.
      ends: `terminations`, `truncations`, `final_values`, `bootstrap_values` as in `gae`.

    Returns:
      `[B, T]`, reward units, 0 where masked.

    Raises:
      AssertionError: the shapes differ, or the mask holds real numbers.
      ValueError: a number outside its range, or truncations without final_values.

    When: targets of a value function.
    TRL: the `returns` of `PPOTrainer`.
    Source: Sutton and Barto 2018, http://incompleteideas.net/book/the-book-2nd.html, Eq. 12.18.

    >>> rewards, values = jnp.array([[0.0, 1.0]]), jnp.array([[0.5, 0.5]])
    >>> mask = jnp.ones((1, 2), bool)
    >>> lambda_returns(rewards, values, mask, gamma=1.0, trace_lambda=0.5).tolist()
    [[0.75, 1.0]]
    """
    assert_range(SHARE, trace_lambda=trace_lambda)
    return gae(rewards, values, mask, gamma=gamma, gae_lambda=trace_lambda, **ends)[1]


def n_step_returns(
    rewards: jax.Array,
    values: jax.Array,
    mask: jax.Array,
    *,
    gamma: float,
    steps: int,
    **ends: jax.Array | None,
) -> jax.Array:
    """N-step returns: the rewards of n steps and the value after them.

      G^n_t = r_t + gamma G^{n-1}_{t'},  G^0_t = V_t,  t' the next unmasked step

    Where an episode ends within the n steps, so does the sum; where it was cut, or after the last
    step, the value given for that place is used.

    Args:
      rewards, values, mask: `[B, T]` as in `gae`.
      gamma: discount in [0, 1].
      steps: n, at least 1.
      ends: `terminations`, `truncations`, `final_values`, `bootstrap_values` as in `gae`.

    Returns:
      `[B, T]`, reward units, 0 where masked.

    Raises:
      AssertionError: the shapes differ, or the mask holds real numbers.
      ValueError: a number outside its range.

    When: Q-learning and actor-critics with short traces.
    TRL: not there.
    Source: Sutton and Barto 2018, http://incompleteideas.net/book/the-book-2nd.html, Eq. 7.1.

    >>> rewards, values = jnp.array([[1.0, 1.0, 1.0]]), jnp.array([[5.0, 6.0, 7.0]])
    >>> mask = jnp.ones((1, 3), bool)
    >>> n_step_returns(rewards, values, mask, gamma=1.0, steps=2).tolist()
    [[9.0, 2.0, 1.0]]
    """
    assert_range(SHARE, gamma=gamma)
    assert_range(COUNT, steps=steps)
    assert_same_shape(rewards=rewards, values=values, mask=mask)
    mask = flags(mask=mask)
    rewards, values = widen(rewards, jnp.where(mask, values, 0))
    limits = episode_ends(values, mask, **ends)

    def one_more_step(_: int, returns: jax.Array) -> jax.Array:
        following = values_after(returns, mask, limits, recurrence_scan)
        return jnp.where(mask, rewards + gamma * following, 0)

    return cast(jax.Array, jax.lax.fori_loop(0, steps, one_more_step, values))
