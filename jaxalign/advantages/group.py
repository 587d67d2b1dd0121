"""Advantages relative to the other responses to the same prompt: no value function.

Scores are `[P, G]`, a row for each prompt, so a group is always whole. Means and variances are
taken in two passes, and there is no epsilon: a group of equal scores has advantages of exactly 0,
also where they differ by rounding alone (`masking.equal_entries`), as sums of rewards do.
"""

import chex
import jax
import jax.numpy as jnp

from jaxalign.advantages.declarations import AdvantageEstimator
from jaxalign.numerics.arguments import assert_rank, assert_same_shape, flags
from jaxalign.numerics.masking import (
    equal_entries,
    masked_sum,
    masked_variance,
    whiten,
    without_values,
)
from jaxalign.numerics.precision import rounding, widen


def centred_advantages(scores: jax.Array, mask: jax.Array) -> jax.Array:
    """The score less the mean of its group.

      A_i = s_i - mean_j s_j

    Args:
      scores: `[P, G]`, reward units: P prompts, G responses each.
      mask: `[P, G]` bool, false where a response is missing.

    Returns:
      `[P, G]`, reward units, 0 where masked.

    Raises:
      AssertionError: the shapes differ, or the mask holds real numbers.

    When: Dr. GRPO: groups keep the scale of their rewards.
    TRL: `scale_rewards="none"`.
    Source: Liu et al. 2025, https://arxiv.org/abs/2503.20783, Sec. 3.2 (Dr. GRPO).

    >>> centred_advantages(jnp.array([[1.0, 3.0]]), jnp.ones((1, 2), bool)).tolist()
    [[-1.0, 1.0]]
    """
    assert_rank(2, scores=scores)
    assert_same_shape(scores=scores, mask=mask)
    mask = flags(mask=mask)
    (scores,) = widen(scores)
    lowest = jnp.min(jnp.where(mask, scores, jnp.inf), axis=1, keepdims=True)
    above = jnp.where(mask, scores - lowest, 0)
    count = jnp.maximum(jnp.sum(mask, axis=1, keepdims=True), 1)
    centred = jnp.where(mask, above - jnp.sum(above, axis=1, keepdims=True) / count, 0)
    return without_values(centred, equal_entries(scores, mask, axis=1))


def grpo_advantages(scores: jax.Array, mask: jax.Array) -> jax.Array:
    """The score standardised within its group.

      A_i = (s_i - mean_j s_j) / std_j s_j,  std with ddof 1

    Args:
      scores: `[P, G]`, reward units: P prompts, G responses each.
      mask: `[P, G]` bool, false where a response is missing.

    Returns:
      `[P, G]`, dimensionless, 0 where masked and in groups of equal scores.

    Raises:
      AssertionError: the shapes differ, or the mask holds real numbers.

    When: GRPO as published.
    TRL: `scale_rewards="group"`, plus 1e-4 in the denominator.
    Source: Shao et al. 2024, https://arxiv.org/abs/2402.03300, Sec. 4.1.2.

    >>> print(grpo_advantages(jnp.array([[1.0, 3.0]]), jnp.ones((1, 2), bool)).round(4))
    [[-0.7071  0.7071]]
    """
    assert_same_shape(scores=scores, mask=mask)
    mask = flags(mask=mask)
    centred = centred_advantages(scores, mask)
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(centred), axis=1, keepdims=True))
    some = largest > 0
    unit = centred / jnp.where(some, largest, 1)  # so that no square over- or underflows
    freedom = jnp.maximum(jnp.sum(mask, axis=1, keepdims=True) - 1, 1)
    variance = jnp.sum(unit**2, axis=1, keepdims=True) / freedom
    return unit / jnp.sqrt(jnp.where(some, variance, 1))


def batch_scaled_advantages(
    scores: jax.Array, mask: jax.Array, *, axis_name: str | None = None
) -> jax.Array:
    """The score less the mean of its group, over the deviation of all scores of the batch.

      A_i = (s_i - mean_{j in group} s_j) / std_{all k} s_k,  std with ddof 1

    Args:
      scores: `[P, G]`, reward units: P prompts, G responses each.
      mask: `[P, G]` bool, false where a response is missing.
      axis_name: mapped axis that the rest of the batch is on, or None.

    Returns:
      `[P, G]`, dimensionless, 0 where masked and in groups of equal scores.

    Raises:
      AssertionError: the shapes differ, or the mask holds real numbers.

    When: easy and hard prompts should keep their relative scale.
    TRL: `scale_rewards="batch"`, plus 1e-4 in the denominator.
    Source: Liu et al. 2025, https://arxiv.org/abs/2508.08221, Sec. 4.1 (batch-level deviation).

    >>> scores, mask = jnp.array([[1.0, 3.0], [2.0, 2.0]]), jnp.ones((2, 2), bool)
    >>> print(batch_scaled_advantages(scores, mask).round(4))
    [[-1.2247  1.2247]
     [ 0.      0.    ]]
    """
    assert_same_shape(scores=scores, mask=mask)
    mask = flags(mask=mask)
    variance = masked_variance(scores, mask, ddof=1, axis_name=axis_name)
    deviation = jnp.sqrt(jnp.where(variance > 0, variance, 1))
    return centred_advantages(scores, mask) / deviation


def leave_one_out_advantages(scores: jax.Array, mask: jax.Array) -> jax.Array:
    """The score less the mean of the other scores of its group: an unbiased baseline.

      A_i = s_i - mean_{j != i} s_j = (s_i - mean_j s_j) n / (n - 1)

    Args:
      scores: `[P, G]`, reward units: P prompts, G responses each.
      mask: `[P, G]` bool, false where a response is missing.

    Returns:
      `[P, G]`, reward units, 0 where masked and in groups of one.

    Raises:
      AssertionError: the shapes differ, or the mask holds real numbers.

    When: RLOO.
    TRL: `RLOOTrainer`.
    Source: Ahmadian et al. 2024, https://arxiv.org/abs/2402.14740, Eq. 8 (RLOO).

    >>> leave_one_out_advantages(jnp.array([[1.0, 3.0]]), jnp.ones((1, 2), bool)).tolist()
    [[-2.0, 2.0]]
    """
    assert_same_shape(scores=scores, mask=mask)
    mask = flags(mask=mask)
    centred = centred_advantages(scores, mask)
    count = jnp.sum(mask, axis=1, keepdims=True).astype(centred.dtype)
    return centred * count / jnp.maximum(count - 1, 1)


def length_weighted_advantages(scores: jax.Array, lengths: jax.Array, mask: jax.Array) -> jax.Array:
    """The score less the length-weighted mean of its group, the baseline of least variance.

      A_i = s_i - sum_j l_j s_j / sum_j l_j

    Args:
      scores: `[P, G]`, reward units: P prompts, G responses each.
      mask: `[P, G]` bool, false where a response is missing.
      lengths: `[P, G]` response tokens.

    Returns:
      `[P, G]`, reward units, 0 where masked.

    Raises:
      AssertionError: the shapes differ, or the mask holds real numbers.

    When: on-policy training without clip and KL (OPO).
    TRL: not there.
    Source: Hao et al. 2025, https://arxiv.org/abs/2505.23585, the optimal baseline.

    >>> scores, lengths = jnp.array([[1.0, 4.0]]), jnp.array([[1, 2]])
    >>> length_weighted_advantages(scores, lengths, jnp.ones((1, 2), bool)).tolist()
    [[-2.0, 1.0]]
    """
    assert_same_shape(scores=scores, mask=mask)
    mask = flags(mask=mask)
    centred = centred_advantages(scores, mask)
    assert_same_shape(scores=scores, lengths=lengths)
    weights = jnp.where(mask, lengths, 0).astype(centred.dtype)
    total = jnp.maximum(jnp.sum(weights, axis=1, keepdims=True), 1)
    offset = jnp.sum(weights * centred, axis=1, keepdims=True) / total
    return jnp.where(mask, centred - offset, 0)


def best_of_group_advantages(scores: jax.Array, mask: jax.Array) -> jax.Array:
    """Best-of-group advantages: the lead of the best score over the second, 0 for the others.

      A_i = max_j s_j - max_{j != i} s_j

    The gradient estimate sum_i A_i grad log pi(y_i) is unbiased for the expected *largest* score of
    a group, which for right-or-wrong scores is pass@G.

    Args:
      scores: `[P, G]`, reward units: P prompts, G responses each.
      mask: `[P, G]` bool, false where a response is missing.

    Returns:
      `[P, G]`, reward units, at least 0; 0 where masked, in ties and in groups of one.

    Raises:
      AssertionError: the shapes differ, or the mask holds real numbers.

    When: several attempts are allowed and one has to be right.
    TRL: not there.
    Source: Tang et al. 2025, https://arxiv.org/abs/2503.19595, leave-one-out for pass@k.

    >>> best_of_group_advantages(jnp.array([[1.0, 4.0, 2.0]]), jnp.ones((1, 3), bool)).tolist()
    [[0.0, 2.0, 0.0]]
    """
    assert_rank(2, scores=scores)
    assert_same_shape(scores=scores, mask=mask)
    mask = flags(mask=mask)
    (scores,) = widen(scores)
    ordered = jnp.sort(jnp.where(mask, scores, -jnp.inf), axis=1)
    best = ordered[:, -1:]
    second = ordered[:, -2:-1] if scores.shape[1] > 1 else best
    several = jnp.sum(mask, axis=1, keepdims=True) > 1
    lead = jnp.where(several, best - second, 0)
    lead = without_values(lead, lead <= rounding(jnp.abs(best)))
    return jnp.where(mask & (scores == best), lead, 0)


def weighted_scores(scores: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Weighted sum of the scores of several reward functions, some of which may be missing.

      s = sum_f w_f s_f over those that are not NaN

    Responses that are compared should have been scored by the same functions, or one without a low
    score may win by that; the command line sees to it (`advantages.reward_sums`).

    Args:
      scores: `[F, ...]`, reward units; NaN where a function returned none.
      weights: `[F]`.

    Returns:
      `[...]` scores, 0 where all are NaN, and a `[...]` bool mask, false there.

    Raises:
      AssertionError: the shapes do not fit.

    When: rewards for format, truth and style at once.
    TRL: `reward_weights`.
    Source: Shao et al. 2024, https://arxiv.org/abs/2402.03300, for one; sums are usual practice.

    >>> scores, mask = weighted_scores(jnp.array([[1.0, jnp.nan], [2.0, jnp.nan]]), jnp.ones(2))
    >>> scores.tolist(), mask.tolist()
    ([3.0, 0.0], [True, False])
    """
    assert_rank(1, weights=weights)
    chex.assert_axis_dimension(scores, 0, len(weights))
    scores, weights = widen(scores, weights)
    mask = ~jnp.isnan(scores)
    return _weighted_sum(jnp.where(mask, scores, 0), weights), jnp.any(mask, axis=0)


def _weighted_sum(scores: jax.Array, weights: jax.Array) -> jax.Array:
    """Sum of scores `[F, ...]` times weights `[F]`: no dot product, which may round to bfloat16."""
    weights = weights.reshape(-1, *[1] * (scores.ndim - 1))
    return jnp.sum(weights * scores, axis=0)


def decoupled_advantages(
    scores: jax.Array, weights: jax.Array, *, axis_name: str | None = None
) -> jax.Array:
    """GDPO advantages: rewards standardised within groups, added, then whitened over the batch.

      A = whiten( sum_f w_f grpo_advantages(s_f) )

    So a reward of small scale is not drowned by one of large scale.

    Args:
      scores: `[F, P, G]`, reward units; NaN where a function returned none.
      weights: `[F]`.
      axis_name: mapped axis that the rest of the batch is on, or None.

    Returns:
      `[P, G]`, dimensionless; variance 1 with ddof 1.

    Raises:
      AssertionError: the shapes do not fit.

    When: several rewards of different scales (GDPO).
    TRL: `multi_objective_aggregation="normalize_then_sum"`, plus 1e-4 in both denominators.
    Source: Liu et al. 2026, https://arxiv.org/abs/2601.05242 (GDPO).

    >>> one = jnp.array([[[1.0, 3.0]]])
    >>> print(decoupled_advantages(one, jnp.ones(1)).round(4))
    [[-0.7071  0.7071]]
    """
    assert_rank(3, scores=scores)
    assert_rank(1, weights=weights)
    chex.assert_axis_dimension(scores, 0, len(weights))
    has_score = ~jnp.isnan(scores)
    each = jax.vmap(grpo_advantages)(scores, has_score)
    mask = jnp.any(has_score, axis=0)
    weights = weights.astype(each.dtype)
    total = _weighted_sum(each, weights)
    scale = _weighted_sum(jnp.abs(each), jnp.abs(weights))
    total = without_values(total, jnp.abs(total) <= rounding(scale))
    count = masked_sum(jnp.ones_like(total), mask, axis_name=axis_name)
    count = jnp.maximum(count, 2)  # whitened, less than two scores are 0
    return whiten(total, mask, axis_name=axis_name) * jnp.sqrt((count - 1) / count)


GROUP = AdvantageEstimator(
    name="group", of_responses=lambda scores, lengths, mask: grpo_advantages(scores, mask)
)
BATCH = AdvantageEstimator(
    name="batch", of_responses=lambda scores, lengths, mask: batch_scaled_advantages(scores, mask)
)
CENTRED = AdvantageEstimator(
    name="centred", of_responses=lambda scores, lengths, mask: centred_advantages(scores, mask)
)
LEAVE_ONE_OUT = AdvantageEstimator(
    name="leave_one_out",
    of_responses=lambda scores, lengths, mask: leave_one_out_advantages(scores, mask),
)
BEST_OF_GROUP = AdvantageEstimator(
    name="best_of_group",
    of_responses=lambda scores, lengths, mask: best_of_group_advantages(scores, mask),
)
LENGTH_WEIGHTED = AdvantageEstimator(
    name="length_weighted", of_responses=length_weighted_advantages
)
