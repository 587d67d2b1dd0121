"""Group sequence policy optimization: one ratio for the whole response.

The functions return log-ratios; give them to `grpo_loss` or `ppo_policy_loss` as `logps`, with
zeros as `behaviour_logps`.
"""

import jax
import jax.numpy as jnp

from jaxalign.losses.aggregation import SEQUENCE_MEAN
from jaxalign.losses.group_methods import GroupMethod
from jaxalign.losses.grpo import Decision, clipped_surrogate, each_token
from jaxalign.numerics.arguments import assert_rank, assert_same_shape, flags
from jaxalign.numerics.masking import masked_sum
from jaxalign.numerics.precision import widen

__all__ = (
    "GSPO",
    "GSPO_TOKEN",
    "sequence_log_ratios",
    "token_log_ratios",
)


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
      AssertionError: the shapes differ, or the mask holds real numbers.

    When: rewards are for whole responses; mixtures of experts, whose token ratios are noisy.
    TRL: `importance_sampling_level="sequence"`.
    Source: Zheng et al. 2025, https://arxiv.org/abs/2507.18071, Eq. 7 (GSPO).

    >>> logps, mask = jnp.array([[-1.0, -3.0]]), jnp.ones((1, 2), bool)
    >>> sequence_log_ratios(logps, jnp.zeros((1, 2)), mask).tolist()
    [[-2.0, -2.0]]
    """
    assert_rank(2, logps=logps)
    assert_same_shape(logps=logps, behaviour_logps=behaviour_logps, mask=mask)
    mask = flags(mask=mask)
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
      AssertionError: the shapes differ, or the mask holds real numbers.

    When: GSPO with advantages that differ from token to token.
    TRL: not there.
    Source: Zheng et al. 2025, https://arxiv.org/abs/2507.18071, Eq. 14 (GSPO-token).

    >>> logps, mask = jnp.array([[-1.0, -3.0]]), jnp.ones((1, 2), bool)
    >>> token_log_ratios(logps, jnp.zeros((1, 2)), mask).tolist()
    [[-2.0, -2.0]]
    """
    means = jax.lax.stop_gradient(sequence_log_ratios(logps, behaviour_logps, mask))
    return means + (logps - jax.lax.stop_gradient(logps))


def _sequence_decision(
    logps: jax.Array, behaviour_logps: jax.Array, mask: jax.Array, advantages: jax.Array
) -> Decision:
    """The ratio and the advantage of the response at each of its tokens (GSPO)."""
    ratios = sequence_log_ratios(logps, behaviour_logps, mask)
    return ratios, jnp.zeros_like(ratios), each_token(advantages, logps)


def _token_decision(
    logps: jax.Array, behaviour_logps: jax.Array, mask: jax.Array, advantages: jax.Array
) -> Decision:
    """The ratio of the response with the gradient of each token's own, and its own advantage
    (GSPO-token).
    """
    ratios = token_log_ratios(logps, behaviour_logps, mask)
    return ratios, jnp.zeros_like(ratios), advantages


SEQUENCE_CLIP = clipped_surrogate(
    _sequence_decision, formula=sequence_log_ratios, one_advantage=True, one_ratio=True
)
TOKEN_OF_SEQUENCE_CLIP = clipped_surrogate(
    _token_decision, formula=token_log_ratios, one_ratio=True
)
# Eqs. 5 and 7; clip range of Sec. 5.1
GSPO = GroupMethod(
    name="gspo",
    surrogate=SEQUENCE_CLIP,
    hyperparameters={"clip_range": (3e-4, 4e-4)},
    aggregation=SEQUENCE_MEAN,
)
# Eqs. 13 and 14: equal to gspo unless advantages differ from token to token
GSPO_TOKEN = GroupMethod(
    name="gspo_token",
    surrogate=TOKEN_OF_SEQUENCE_CLIP,
    hyperparameters={"clip_range": (3e-4, 4e-4)},
    aggregation=SEQUENCE_MEAN,
)
