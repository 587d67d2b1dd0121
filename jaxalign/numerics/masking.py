"""Masked statistics: sum, global mean, variance, whitening.

A mask is `True` (or a weight of 1) where an entry is real. Entries that are masked out never reach
the result, not even if they are NaN, and get a gradient of exactly 0. With `axis_name`, sums and
counts are added up over that mapped axis first, so every device gets the number of the whole batch.
"""

import functools

import jax
import jax.numpy as jnp

from jaxalign.numerics.arguments import assert_same_shape, flags
from jaxalign.numerics.collectives import psum
from jaxalign.numerics.precision import rounding, widen

__all__ = (
    "masked_sum",
    "masked_mean",
    "masked_variance",
    "whiten",
)


def is_end(tokens: jax.Array, eos_id: int | tuple[int, ...]) -> jax.Array:
    """Whether each token is an end-of-sequence token.

    Args:
      tokens: `[...]` ids.
      eos_id: the id that ends a response, or all of them.

    Returns:
      `[...]` bool.

    >>> is_end(jnp.array([5, 2, 0]), (0, 2)).tolist()
    [False, True, True]
    """
    ids = eos_id if isinstance(eos_id, tuple) else (eos_id,)
    return functools.reduce(jnp.logical_or, [tokens == i for i in ids])


def masked_sum(
    x: jax.Array, mask: jax.Array, axis: int | None = None, axis_name: str | None = None
) -> jax.Array:
    """Sum of the unmasked entries.

      sum_i m_i x_i

    Args:
      x: `[...]`, any unit; bfloat16 is summed in float32.
      mask: `[...]`, bool, or non-negative weights.
      axis: the axis to sum over; None sums over all.
      axis_name: mapped axis to sum over as well, or None.

    Returns:
      The sum; 0 where everything is masked.

    Raises:
      AssertionError: the shapes differ.

    >>> float(masked_sum(jnp.array([1.0, 2.0, jnp.nan]), jnp.array([True, True, False])))
    3.0
    """
    assert_same_shape(x=x, mask=mask)
    (x,) = widen(x)
    kept = jnp.where(mask != 0, x, 0) * jnp.asarray(mask, x.dtype)
    return psum(jnp.sum(kept, axis=axis), axis_name)


def masked_mean(x: jax.Array, mask: jax.Array, *, axis_name: str | None = None) -> jax.Array:
    """Mean of the unmasked entries, over all axes and all devices.

      sum_i m_i x_i / sum_i m_i

    Args:
      x: `[...]`, any unit.
      mask: `[...]`, bool, or non-negative weights.
      axis_name: mapped axis to average over as well, or None.

    Returns:
      A scalar; 0, with a gradient of 0, where everything is masked.

    Raises:
      AssertionError: the shapes differ.

    >>> float(masked_mean(jnp.array([1.0, 2.0, 6.0]), jnp.array([True, True, False])))
    1.5
    """
    total = masked_sum(x, mask, axis_name=axis_name)
    weight = masked_sum(jnp.ones_like(x), mask, axis_name=axis_name)
    return total / jnp.where(weight == 0, 1, weight)


def equal_entries(
    x: jax.Array, mask: jax.Array, *, axis: int | None = None, axis_name: str | None = None
) -> jax.Array:
    """Whether the unmasked entries are equal but for rounding.

      max x - min x <= 4 eps max |x|

    The one rule of everything that divides by a spread, so that no rounding is scaled up to an
    advantage: sums of the same numbers in another order have none.

    Args:
      x: `[...]`, any unit; float32 or wider.
      mask: `[...]`, bool, or non-negative weights.
      axis: the axis to compare over, which stays with length 1; None compares over all.
      axis_name: mapped axis to compare over as well, or None.

    Returns:
      bool, true where fewer than two entries are unmasked.

    >>> x, mask = jnp.array([[0.7, 0.70000005], [0.7, 0.7001]]), jnp.ones((2, 2), bool)
    >>> equal_entries(x, mask, axis=1).tolist()
    [[True], [False]]
    """
    lowest, highest = _range(x, mask, axis, axis_name)
    scale = jnp.maximum(jnp.abs(lowest), jnp.abs(highest))
    return highest - lowest <= rounding(scale)


def with_ties_restored(x: jax.Array, scale: jax.Array, mask: jax.Array, *, axis: int) -> jax.Array:
    """Entries with ties restored: the smallest one in place of all that differ by rounding alone.

    The rounding is that of the terms that they are sums of.

    So 0.26 less a penalty of 0.25 is 0.01, though float32 knows the difference to 1e-8 only.

    Args:
      x: `[...]`, any unit; float32 or wider.
      scale: `[...]` magnitude of the terms of each: the sum of their absolute values.
      mask: `[...]` bool; masked entries are left as they are.
      axis: the axis to compare over.

    Raises:
      AssertionError: the shapes differ.

    >>> terms, mask = jnp.float32([[[0.26, -0.25], [0.01, 0]]]), jnp.ones((1, 2), bool)
    >>> sums, scale = terms.sum(-1), jnp.abs(terms).sum(-1)
    >>> [float(jnp.ptp(x)) > 0 for x in (sums, with_ties_restored(sums, scale, mask, axis=1))]
    [True, False]
    """
    assert_same_shape(x=x, scale=scale, mask=mask)
    lowest, highest = _range(x, mask, axis, None)
    _, largest = _range(scale, mask, axis, None)
    equal = (mask != 0) & (highest - lowest <= rounding(largest))
    return jnp.where(equal, lowest, x)


def _range(
    x: jax.Array, mask: jax.Array, axis: int | None, axis_name: str | None
) -> tuple[jax.Array, jax.Array]:
    """The smallest and the largest unmasked entry, without gradients."""
    x, kept, keep = jax.lax.stop_gradient(x), mask != 0, axis is not None
    lowest = jnp.min(jnp.where(kept, x, jnp.inf), axis=axis, keepdims=keep)
    highest = jnp.max(jnp.where(kept, x, -jnp.inf), axis=axis, keepdims=keep)
    if axis_name is None:
        return lowest, highest
    return jax.lax.pmin(lowest, axis_name), jax.lax.pmax(highest, axis_name)


def without_values(x: jax.Array, where: jax.Array) -> jax.Array:
    """`x` with values of 0 at some places, and its own gradients everywhere.

    Args:
      x: `[...]`.
      where: `[...]` bool, true where the value becomes 0.
    """
    return x - jnp.where(where, jax.lax.stop_gradient(x), 0)


def _deviations(
    x: jax.Array, mask: jax.Array, axis_name: str | None
) -> tuple[jax.Array, jax.Array]:
    """Deviations from the global mean, and the mean; exactly 0 if all are equal but for rounding.

    The mean is taken relative to the smallest entry, or the rounding of the mean would give equal
    entries a variance.
    """
    assert_same_shape(x=x, mask=mask)
    (x,) = widen(jnp.where(mask != 0, x, 0))
    smallest, _ = _range(x, mask, None, axis_name)
    mean_above = masked_mean(x - smallest, mask, axis_name=axis_name)
    deviations = x - smallest - mean_above
    equal = equal_entries(x, mask, axis_name=axis_name)
    return without_values(deviations, equal), smallest + mean_above


def masked_variance(
    x: jax.Array, mask: jax.Array, *, ddof: int, axis_name: str | None = None
) -> jax.Array:
    """Variance of the unmasked entries, over all axes and all devices, in two passes.

      sum_i m_i (x_i - mean)^2 / (sum_i m_i - ddof)

    Args:
      x: `[...]`, any unit.
      mask: `[...]`, bool, or non-negative weights.
      ddof: 0 for the variance of these entries, 1 for the unbiased estimate (Bessel's correction).
      axis_name: mapped axis to pool as well, or None.

    Returns:
      A scalar; 0 where no more than `ddof` entries are unmasked, and exactly 0 for entries that
      are equal but for rounding (`equal_entries`).

    Raises:
      AssertionError: the shapes differ.

    >>> x, mask = jnp.array([1.0, 3.0, 9.0]), jnp.array([True, True, False])
    >>> float(masked_variance(x, mask, ddof=0)), float(masked_variance(x, mask, ddof=1))
    (1.0, 2.0)
    """
    deviations, _ = _deviations(x, mask, axis_name)
    total = masked_sum(deviations**2, mask, axis_name=axis_name)
    freedom = masked_sum(jnp.ones_like(deviations), mask, axis_name=axis_name) - ddof
    return jnp.where(freedom > 0, total / jnp.where(freedom > 0, freedom, 1), 0)


def whiten(
    x: jax.Array, mask: jax.Array, *, shift_mean: bool = True, axis_name: str | None = None
) -> jax.Array:
    """Whitened entries: scaled to unit variance and, with `shift_mean`, shifted to mean 0.

      (x - mean) / sqrt(var),  var with ddof 0;  without `shift_mean` the mean is added back

    Statistics are those of the whole batch on all devices. There is no epsilon: where the entries
    are equal but for rounding (`equal_entries`) the result is 0 (or x, without `shift_mean`).

    Args:
      x: `[...]`, any unit.
      mask: `[...]` bool.
      shift_mean: whether the result has mean 0; if not, the mean of `x` is kept.
      axis_name: mapped axis over which statistics are pooled, or None.

    Returns:
      `[...]`, dimensionless, 0 where masked.

    Raises:
      AssertionError: the shapes differ, or the mask holds real numbers.

    Source: Ziegler et al. 2019, https://arxiv.org/abs/1909.08593, published code
      (`whiten`, less its epsilon).

    >>> whiten(jnp.array([1.0, 3.0, 9.0]), jnp.array([True, True, False])).tolist()
    [-1.0, 1.0, 0.0]
    """
    mask = flags(mask=mask)
    deviations, mean = _deviations(x, mask, axis_name)
    variance = masked_variance(x, mask, ddof=0, axis_name=axis_name)
    scaled = deviations / jnp.sqrt(jnp.where(variance == 0, 1, variance))
    return jnp.where(mask, scaled if shift_mean else scaled + mean, 0)
