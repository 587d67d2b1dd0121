"""V-trace: value targets and advantages from the actions of another policy."""

import chex
import jax
import jax.numpy as jnp

from jaxalign.advantages.gae import next_unmasked, recurrence_scan
from jaxalign.precision import saturating_exp, widen


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
    bootstrap_values: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Off-policy corrected value targets and policy-gradient advantages.

      v_t = V_t + delta_t + gamma c_t (v_{t'} - V_{t'}),  delta_t = rho_t (r_t + gamma V_{t'} - V_t)
      A_t = rho_t (r_t + gamma (lambda v_{t'} + (1 - lambda) V_{t'}) - V_t)

    with rho = min(rho_clip, r), c = lambda min(c_clip, r), r = pi / pi_behaviour, t' the next
    unmasked step. Neither result has a gradient.

    Args:
      log_ratios: `[B, T]` nats, log pi(a) - log pi_behaviour(a).
      rewards, values, mask: `[B, T]` as in `gae`.
      gamma: discount in [0, 1].
      trace_lambda: in [0, 1].
      rho_clip: cap of the ratios in delta and A: which policy's values are learned.
      c_clip: cap of the traces: how far corrections travel.
      bootstrap_values: `[B]`, V after the last step; None: the end is terminal.

    Returns:
      Advantages and targets, `[B, T]` in reward units, 0 where masked.

    Raises:
      AssertionError: the shapes differ.

    When: actors lag behind the learner.
    TRL: not there.
    Source: Espeholt et al. 2018, https://arxiv.org/abs/1802.01561, Eq. 1 and Remarks 1 and 2.

    >>> zero, rewards = jnp.zeros((1, 2)), jnp.array([[0.0, 1.0]])
    >>> advantages, targets = vtrace(zero, rewards, zero, jnp.ones((1, 2), bool), gamma=1.0)
    >>> advantages.tolist(), targets.tolist()
    ([[1.0, 1.0]], [[1.0, 1.0]])
    """
    chex.assert_rank(log_ratios, 2)
    chex.assert_equal_shape([log_ratios, rewards, values, mask])
    arrays = (jnp.where(mask, x, 0) for x in (log_ratios, rewards, values))
    log_ratios, rewards, values = jax.lax.stop_gradient(widen(*arrays))
    after_last = jnp.zeros_like(values[:, 0])
    if bootstrap_values is not None:
        chex.assert_equal_shape([bootstrap_values, after_last])
        after_last = jax.lax.stop_gradient(bootstrap_values.astype(values.dtype))
    ratios = saturating_exp(log_ratios)
    rho = jnp.minimum(ratios, rho_clip)
    following = next_unmasked(recurrence_scan, values, mask, after_last)
    deltas = jnp.where(mask, rho * (rewards + gamma * following - values), 0)
    decays = jnp.where(mask, gamma * trace_lambda * jnp.minimum(ratios, c_clip), 1)
    corrections = recurrence_scan(decays, deltas, jnp.zeros_like(after_last))
    targets = jnp.where(mask, values + corrections, 0)
    mixed = next_unmasked(
        recurrence_scan,
        trace_lambda * targets + (1 - trace_lambda) * values,
        mask,
        after_last,
    )
    advantages = jnp.where(mask, rho * (rewards + gamma * mixed - values), 0)
    return advantages, targets
