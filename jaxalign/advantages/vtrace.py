"""V-trace: value targets and advantages from the actions of another policy."""

import jax
import jax.numpy as jnp

from jaxalign.advantages.episodes import episode_ends, recurrence_scan, values_after
from jaxalign.numerics.arguments import assert_range, assert_same_shape, flags
from jaxalign.numerics.bounds import SHARE
from jaxalign.numerics.precision import saturating_exp, widen


def vtrace(
    log_ratios: jax.Array,
    rewards: jax.Array,
    values: jax.Array,
    mask: jax.Array,
    *,
    gamma: float,
    trace_lambda: float = 1.0,
    rho_clip: float = 1.0,
    c_clip: float = 1.0,
    **ends: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    """V-trace advantages and value targets, corrected for another policy's actions.

      v_t = V_t + delta_t + gamma c_t (v_{t'} - V_{t'}),  delta_t = rho_t (r_t + gamma V_{t'} - V_t)
      A_t = rho_t (r_t + gamma (lambda v_{t'} + (1 - lambda) V_{t'}) - V_t)

    with rho = min(rho_clip, r), c = lambda min(c_clip, r), r = pi / pi_behaviour, t' the next
    unmasked step; v and V after a step that ends an episode are as in `gae`. Neither result has a
    gradient.

    Args:
      log_ratios: `[B, T]` nats, log pi(a) - log pi_behaviour(a).
      rewards, values, mask: `[B, T]` as in `gae`.
      gamma: discount in [0, 1].
      trace_lambda: in [0, 1].
      rho_clip: cap of the ratios in delta and A: which policy's values are learned.
      c_clip: cap of the traces: how far corrections travel.
      ends: `terminations`, `truncations`, `final_values`, `bootstrap_values` as in `gae`.

    Returns:
      Advantages and targets, `[B, T]` in reward units, 0 where masked.

    Raises:
      AssertionError: the shapes differ, or the mask holds real numbers.
      ValueError: a number outside its range, or truncations without final_values.

    When: actors lag behind the learner.
    TRL: not there.
    Source: Espeholt et al. 2018, https://arxiv.org/abs/1802.01561, Eq. 1 and Remarks 1 and 2.

    >>> zero, rewards = jnp.zeros((1, 2)), jnp.array([[0.0, 1.0]])
    >>> advantages, targets = vtrace(zero, rewards, zero, jnp.ones((1, 2), bool), gamma=1.0)
    >>> advantages.tolist(), targets.tolist()
    ([[1.0, 1.0]], [[1.0, 1.0]])
    """
    assert_range(SHARE, gamma=gamma, trace_lambda=trace_lambda)
    assert_same_shape(log_ratios=log_ratios, rewards=rewards, values=values, mask=mask)
    mask = flags(mask=mask)
    arrays = widen(log_ratios, rewards, jnp.where(mask, values, 0))
    log_ratios, rewards, values = jax.lax.stop_gradient(arrays)
    limits = jax.lax.stop_gradient(episode_ends(values, mask, **ends))
    ratios = saturating_exp(log_ratios)
    rho = jnp.minimum(ratios, rho_clip)
    following = values_after(values, mask, limits, recurrence_scan)
    deltas = jnp.where(mask, rho * (rewards + gamma * following - values), 0)
    decays = jnp.where(limits.over, 0, gamma * trace_lambda * jnp.minimum(ratios, c_clip))
    nothing = jnp.zeros_like(limits.bootstrap_values)
    corrections = recurrence_scan(jnp.where(mask, decays, 1), deltas, nothing)
    targets = jnp.where(mask, values + corrections, 0)
    mixed = trace_lambda * targets + (1 - trace_lambda) * values
    following = values_after(mixed, mask, limits, recurrence_scan)
    return jnp.where(mask, rho * (rewards + gamma * following - values), 0), targets
