"""Aggregation of token losses to one number: weights of the tokens, and the weight to divide by.

A loss travels as a sum and a weight. Each function here returns token weights `[B, T]` and this
device's part of the divisor; sums of both over devices and micro-batches give the same loss for
every cut of the batch, which means of means do not.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxalign.numerics.arguments import assert_range, assert_rank, assert_same_shape, flags
from jaxalign.numerics.bounds import COUNT
from jaxalign.numerics.named import by_name

__all__ = (
    "token_mean",
    "sequence_mean",
    "constant_length",
    "sequence_sum",
    "without_truncated",
)

Weights = tuple[jax.Array, jax.Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Aggregation:
    """An aggregation of token losses under its name on the command line.

    name: after `--grpo.aggregation`.
    weights: `(mask [B, T], tokens of the longest response that sampling allows) -> Weights`.
    """

    name: str
    weights: Callable[[jax.Array, int], Weights]


def token_mean(mask: jax.Array) -> Weights:
    """Mean over the tokens of all responses: each token counts the same, long responses weigh more.

      L = sum_it m_it L_it / sum_it m_it

    Args:
      mask: `[B, T]` bool, true on the tokens that are trained.

    Returns:
      Token weights `[B, T]` and the divisor `[]`: the number of tokens.

    Raises:
      AssertionError: the mask is no matrix, or holds real numbers.

    When: DAPO; the usual choice.
    TRL: `loss_type="dapo"`, and `"bnpo"` for the tokens of one micro-batch.
    Source: Yu et al. 2025, https://arxiv.org/abs/2503.14476, Eq. 8 (DAPO).

    >>> weights, divisor = token_mean(jnp.array([[True, True], [True, False]]))
    >>> weights.tolist(), float(divisor)
    ([[1.0, 1.0], [1.0, 0.0]], 3.0)
    """
    weights = _real(mask)
    return weights, weights.sum()


def sequence_mean(mask: jax.Array, rows: jax.Array | None = None) -> Weights:
    """Mean over responses of the mean over their tokens: each response counts the same.

      L = (1 / B) sum_i (1 / |y_i|) sum_t m_it L_it

    Args:
      mask: `[B, T]` bool, true on the tokens that are trained.
      rows: `[B]`, 1 for rows that count in B; None: those with a token to train. TRL counts rows
        whose mask is empty too.

    Returns:
      Token weights `[B, T]` and the divisor `[]`: the number of responses.

    Raises:
      AssertionError: the shapes do not fit, or the mask holds real numbers.

    When: GRPO as published; GSPO.
    TRL: `loss_type="grpo"`.
    Source: Shao et al. 2024, https://arxiv.org/abs/2402.03300, Eq. 3 (GRPO).

    >>> weights, divisor = sequence_mean(jnp.array([[True, True], [True, False]]))
    >>> weights.tolist(), float(divisor)
    ([[0.5, 0.5], [1.0, 0.0]], 2.0)
    """
    weights = _real(mask)
    lengths = jnp.maximum(weights.sum(axis=1, keepdims=True), 1)
    return weights / lengths, _counted(mask, rows)


def constant_length(mask: jax.Array, rows: jax.Array | None = None, *, length: int) -> Weights:
    """Sum over tokens divided by responses times a constant length, whatever was sampled.

      L = (1 / (B length)) sum_it m_it L_it

    Args:
      mask: `[B, T]` bool, true on the tokens that are trained.
      rows: `[B]`, 1 for rows that count in B; None: those with a token to train.
      length: the longest response that sampling allows, in tokens.

    Returns:
      Token weights `[B, T]` and the divisor `[]`: responses times `length`.

    Raises:
      AssertionError: the shapes do not fit, or the mask holds real numbers.
      ValueError: `length` below 1.

    When: Dr. GRPO: no bias towards short right or long wrong responses.
    TRL: `loss_type="dr_grpo"`.
    Source: Liu et al. 2025, https://arxiv.org/abs/2503.20783, App. (masked_mean with a constant).

    >>> weights, divisor = constant_length(jnp.array([[True, True], [True, False]]), length=4)
    >>> weights.tolist(), float(divisor)
    ([[1.0, 1.0], [1.0, 0.0]], 8.0)
    """
    assert_range(COUNT, length=length)
    return _real(mask), _counted(mask, rows) * length


def sequence_sum(mask: jax.Array, rows: jax.Array | None = None) -> Weights:
    """Mean over responses of the sum over their tokens.

      L = (1 / B) sum_it m_it L_it

    Args:
      mask: `[B, T]` bool, true on the tokens that are trained.
      rows: `[B]`, 1 for rows that count in B; None: those with a token to train.

    Returns:
      Token weights `[B, T]` and the divisor `[]`: the number of responses.

    Raises:
      AssertionError: the shapes do not fit, or the mask holds real numbers.

    When: LUSPO (with the ratio of the sequence); the policy gradient of the paper.
    TRL: `loss_type="luspo"`.
    Source: 2026, https://arxiv.org/abs/2602.05261 (LUSPO).

    >>> weights, divisor = sequence_sum(jnp.array([[True, True], [True, False]]))
    >>> weights.tolist(), float(divisor)
    ([[1.0, 1.0], [1.0, 0.0]], 2.0)
    """
    return _real(mask), _counted(mask, rows)


def without_truncated(mask: jax.Array, ended: jax.Array) -> jax.Array:
    """Mask without the responses that were cut off, which leave loss and divisor alike.

      m'_it = m_it [response i ended by itself]

    Args:
      mask: `[B, T]` bool.
      ended: `[B]` bool, whether the response ended by itself.

    Returns:
      `[B, T]` bool.

    Raises:
      AssertionError: the shapes do not fit, or the mask holds real numbers.

    When: the limit of length is tight, and a cut answer says nothing of its quality.
    TRL: `mask_truncated_completions`.
    Source: Yu et al. 2025, https://arxiv.org/abs/2503.14476, Sec. 3.4 (overlong filtering).

    >>> without_truncated(jnp.ones((2, 1), bool), jnp.array([True, False])).tolist()
    [[True], [False]]
    """
    assert_rank(2, mask=mask)
    assert_rank(1, ended=ended)
    assert_same_shape(axes=1, mask=mask, ended=ended)
    return flags(mask=mask) & flags(ended=ended)[:, None]


def _real(mask: jax.Array) -> jax.Array:
    assert_rank(2, mask=mask)
    return jnp.asarray(flags(mask=mask), float)


def _counted(mask: jax.Array, rows: jax.Array | None) -> jax.Array:
    counted = jnp.any(mask, axis=1) if rows is None else rows
    assert_rank(1, rows=counted)
    assert_same_shape(axes=1, mask=mask, rows=counted)
    return jnp.sum(jnp.asarray(counted, float))


TOKEN_MEAN = Aggregation(name="token_mean", weights=lambda mask, length: token_mean(mask))
SEQUENCE_MEAN = Aggregation(name="sequence_mean", weights=lambda mask, length: sequence_mean(mask))
SEQUENCE_SUM = Aggregation(name="sequence_sum", weights=lambda mask, length: sequence_sum(mask))
CONSTANT_LENGTH = Aggregation(
    name="constant_length", weights=lambda mask, length: constant_length(mask, length=length)
)
AGGREGATIONS = by_name((TOKEN_MEAN, SEQUENCE_MEAN, SEQUENCE_SUM, CONSTANT_LENGTH))
