"""Baselines without groups: the greedy response, and a running mean of scores."""

import jax
import jax.numpy as jnp

from jaxalign.numerics.arguments import assert_range, assert_rank, assert_same_shape, flags
from jaxalign.numerics.bounds import SHARE_BELOW_ONE
from jaxalign.numerics.masking import masked_mean, masked_sum
from jaxalign.numerics.precision import widen


def greedy_baseline_advantages(
    scores: jax.Array, greedy_scores: jax.Array, mask: jax.Array
) -> jax.Array:
    """ReMax advantages: the score less that of the greedy response to the same prompt.

      A_i = s_i - s(argmax decoding)

    The baseline does not depend on the sample, so the gradient estimate stays unbiased.

    Args:
      scores: `[P, G]`, reward units: P prompts, G responses each (1 is usual).
      greedy_scores: `[P]`, reward units.
      mask: `[P, G]` bool, false where a response is missing.

    Returns:
      `[P, G]`, reward units, 0 where masked.

    Raises:
      AssertionError: the shapes do not fit, or the mask holds real numbers.

    When: one response a prompt, and greedy decoding is cheaper than a value model (ReMax).
    TRL: not there.
    Source: Li et al. 2023, https://arxiv.org/abs/2310.10505, the ReMax estimator.

    >>> scores, mask = jnp.array([[1.0, 3.0]]), jnp.ones((1, 2), bool)
    >>> greedy_baseline_advantages(scores, jnp.array([2.0]), mask).tolist()
    [[-1.0, 1.0]]
    """
    assert_rank(2, scores=scores)
    assert_rank(1, greedy_scores=greedy_scores)
    assert_same_shape(scores=scores, mask=mask)
    mask = flags(mask=mask)
    assert_same_shape(axes=1, scores=scores, greedy_scores=greedy_scores)
    scores, greedy_scores = widen(scores, greedy_scores)
    return jnp.where(mask, scores - greedy_scores[:, None], 0)


def running_baseline(
    baseline: jax.Array,
    scores: jax.Array,
    mask: jax.Array,
    *,
    decay: float,
    axis_name: str | None = None,
) -> jax.Array:
    """Running baseline after a batch: an exponential mean of the scores so far.

      b' = b + (1 - decay) (mean(scores) - b)

    Advantages are scores - b with b from *before* their batch: with b' they would be biased.

    Args:
      baseline: `[]`, reward units, the present one.
      scores: `[...]`, reward units.
      mask: `[...]` bool.
      decay: in [0, 1); 0 is the mean of this batch.
      axis_name: mapped axis that the rest of the batch is on, or None.

    Returns:
      `[]`, reward units; the same baseline where everything is masked.

    Raises:
      AssertionError: the shapes do not fit, or the mask holds real numbers.
      ValueError: a number outside its range.

    When: REINFORCE with one response a prompt and no value model.
    TRL: not there.
    Source: Williams 1992, https://doi.org/10.1007/BF00992696, reinforcement comparison.

    >>> scores, mask = jnp.array([1.0, 3.0]), jnp.ones(2, bool)
    >>> float(running_baseline(jnp.float32(0.0), scores, mask, decay=0.75))
    0.5
    """
    assert_rank(0, baseline=baseline)
    assert_range(SHARE_BELOW_ONE, decay=decay)
    assert_same_shape(scores=scores, mask=mask)
    mask = flags(mask=mask)
    mean = masked_mean(scores, mask, axis_name=axis_name)
    count = masked_sum(jnp.ones_like(scores), mask, axis_name=axis_name)
    return jnp.where(count > 0, baseline + (1 - decay) * (mean - baseline), baseline)
