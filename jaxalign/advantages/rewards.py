"""Per-token rewards of a response, and penalties of its score."""

import jax
import jax.numpy as jnp

from jaxalign.numerics.arguments import assert_rank, assert_same_shape, flags
from jaxalign.numerics.masking import is_end
from jaxalign.numerics.precision import settled_sum, widen


def shaped_rewards(
    scores: jax.Array, kl: jax.Array, mask: jax.Array, *, kl_coef: float | jax.Array
) -> jax.Array:
    """Per-token rewards: the score on the last response token, less a KL penalty on every one.

      r_t = -kl_coef kl_t + [t is the last unmasked step] score

    Args:
      scores: `[B]`, reward units, one a response.
      kl: `[B, T]` nats, an estimate per token (k1 is the usual one).
      mask: `[B, T]` bool, true on response tokens; the end comes from it, not from token ids.
      kl_coef: reward units per nat.

    Returns:
      `[B, T]`, reward units, 0 where masked; 0 in a row without response.

    Raises:
      AssertionError: the shapes do not fit, or the mask holds real numbers.

    When: RLHF with PPO, RLOO or REINFORCE.
    TRL: inside `PPOTrainer`, `kl_coef`; since 0.12 the score stands one position later.
    Source: Ziegler et al. 2019, https://arxiv.org/abs/1909.08593, Eq. 2, spread over tokens as in
      its published code.

    >>> kl, mask = jnp.array([[1.0, 1.0, 1.0]]), jnp.array([[True, True, False]])
    >>> shaped_rewards(jnp.array([0.75]), kl, mask, kl_coef=0.5).tolist()
    [[-0.5, 0.25, 0.0]]
    """
    assert_rank(1, scores=scores)
    assert_rank(2, kl=kl)
    assert_same_shape(kl=kl, mask=mask)
    mask = flags(mask=mask)
    assert_same_shape(axes=1, kl=kl, scores=scores)
    scores, kl = widen(scores, kl)
    remaining = jnp.cumsum(mask[:, ::-1], axis=1)[:, ::-1]
    rewards = jnp.where(mask & (remaining == 1), scores[:, None], 0) - kl_coef * kl
    return jnp.where(mask, rewards, 0)


def missing_eos_penalty(
    scores: jax.Array,
    tokens: jax.Array,
    mask: jax.Array,
    *,
    eos_id: int | tuple[int, ...],
    penalty: float,
) -> jax.Array:
    """Scores less a penalty for responses that never ended.

      score - penalty [no response token is EOS]

    Args:
      scores: `[B]`, reward units.
      tokens: `[B, T]` ids.
      mask: `[B, T]` bool, true on response tokens; an EOS in prompt or padding does not count.
      eos_id: the id that ends a response, or all of them.
      penalty: reward units, subtracted.

    Returns:
      `[B]`, reward units; rows without response are left as they are.

    Raises:
      AssertionError: the shapes do not fit, or the mask holds real numbers.

    When: responses should end by themselves.
    TRL: `missing_eos_penalty`.
    Source: Huang et al. 2024, https://arxiv.org/abs/2403.17031, detail "EOS trick".

    >>> tokens, mask = jnp.array([[5, 2], [5, 2]]), jnp.array([[True, True], [True, False]])
    >>> missing_eos_penalty(jnp.array([1.0, 1.0]), tokens, mask, eos_id=2, penalty=3.0).tolist()
    [1.0, -2.0]
    """
    assert_same_shape(tokens=tokens, mask=mask)
    mask = flags(mask=mask)
    assert_same_shape(tokens=tokens[:, 0], scores=scores)
    (scores,) = widen(scores)
    ended = jnp.any(mask & is_end(tokens, eos_id), axis=1)
    penalised = settled_sum(scores, jnp.full_like(scores, -penalty))
    return jnp.where(jnp.any(mask, axis=1) & ~ended, penalised, scores)


def overlong_penalties(lengths: jax.Array, *, longest: int, cache: int) -> jax.Array:
    """Length penalties: 0 up to a soft limit, then linearly down to -1.

      0                                 for |y| <= L_max - L_cache
      ((L_max - L_cache) - |y|) / L_cache   up to L_max
      -1                                beyond

    Args:
      lengths: `[B]` response *tokens*, EOS included.
      longest: L_max, the longest response that sampling allows, in tokens.
      cache: L_cache, length of the linear part in tokens; at least 1.

    Returns:
      `[B]`, reward units in [-1, 0]: add them to the scores.

    Raises:
      AssertionError: `lengths` is no vector.
      ValueError: `cache` is not in 1 ... `longest`.

    When: responses run into the limit of length.
    TRL: `get_soft_overlong_punishment`.
    Source: Yu et al. 2025, https://arxiv.org/abs/2503.14476, Eq. 13 (soft overlong punishment).

    >>> overlong_penalties(jnp.array([6, 8, 10]), longest=10, cache=4).tolist()
    [0.0, -0.5, -1.0]
    """
    if not 1 <= cache <= longest:
        raise ValueError(f"cache must be in 1 ... {longest}, got {cache}")
    assert_rank(1, lengths=lengths)
    (lengths,) = widen(lengths)
    return jnp.clip((longest - cache - lengths) / cache, -1, 0)
