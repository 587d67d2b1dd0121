"""Group sequence policy optimization: one ratio for the whole response.

The functions return log-ratios; give them to `grpo_loss` or `ppo_policy_loss` as `logps`, with
zeros as `behaviour_logps`.
"""

import chex
import jax
import jax.numpy as jnp

from jaxalign.numerics.masking import masked_sum
from jaxalign.numerics.precision import widen


def sequence_log_ratios(logps: jax.Array, behaviour_logps: jax.Array, mask: jax.Array) -> jax.Array:
    """The mean log-ratio of a response, at each of its tokens.

      s_it = (1 / |y_i|) sum_t (log pi(y_it) - log pi_behaviour(y_it))

    The gradient flows to every token of the response.

    Args:
      logps: `[B, T]` nats under the policy that is trained.
      behaviour_logps: `[B, T]` under the policy that acted; get no gradient.
      mask: `[B, T]` bool, true on response tokens.

    Returns:
      `[B, T]` nats, the same along a row; 0 for an empty response.

    Raises:
      AssertionError: the shapes differ.

    When: rewards are for whole responses; mixtures of experts, whose token ratios are noisy.
    TRL: `importance_sampling_level="sequence"`.
    Source: Zheng et al. 2025, https://arxiv.org/abs/2507.18071, Eq. 7 (GSPO).

    >>> logps, mask = jnp.array([[-1.0, -3.0]]), jnp.ones((1, 2), bool)
    >>> sequence_log_ratios(logps, jnp.zeros((1, 2)), mask).tolist()
    [[-2.0, -2.0]]
    """
    chex.assert_rank(logps, 2)
    chex.assert_equal_shape([logps, behaviour_logps, mask])
    logps, behaviour_logps = widen(logps, behaviour_logps)
    ratios = logps - jax.lax.stop_gradient(behaviour_logps)
    lengths = jnp.maximum(jnp.sum(mask, axis=1), 1)
    means = masked_sum(ratios, mask, axis=1) / lengths
    return jnp.broadcast_to(means[:, None], logps.shape)


def token_log_ratios(logps: jax.Array, behaviour_logps: jax.Array, mask: jax.Array) -> jax.Array:
    """The value of the response's ratio with the gradient of the token's own.

      s_it = sg(s_i) + log pi(y_it) - sg(log pi(y_it))

    where sg stops the gradient and s_i is that of `sequence_log_ratios`.

    Args:
      logps: `[B, T]` nats under the policy that is trained.
      behaviour_logps: `[B, T]` under the policy that acted; get no gradient.
      mask: `[B, T]` bool, true on response tokens.

    Returns:
      `[B, T]` nats.

    Raises:
      AssertionError: the shapes differ.

    When: GSPO with advantages that differ from token to token.
    TRL: not there.
    Source: Zheng et al. 2025, https://arxiv.org/abs/2507.18071, Eq. 14 (GSPO-token).

    >>> logps, mask = jnp.array([[-1.0, -3.0]]), jnp.ones((1, 2), bool)
    >>> token_log_ratios(logps, jnp.zeros((1, 2)), mask).tolist()
    [[-2.0, -2.0]]
    """
    means = jax.lax.stop_gradient(sequence_log_ratios(logps, behaviour_logps, mask))
    return means + (logps - jax.lax.stop_gradient(logps))
