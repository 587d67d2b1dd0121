"""Corrections for samples that the trained policy would not have drawn."""

from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp

from jaxalign.logprobs import sequence_logps
from jaxalign.losses.ppo import probability_ratios
from jaxalign.numerics.arguments import assert_range, assert_rank, assert_same_shape, flags
from jaxalign.numerics.bounds import ABOVE_ZERO, SHARE_ABOVE_ZERO
from jaxalign.numerics.collectives import gather
from jaxalign.numerics.masking import masked_sum
from jaxalign.numerics.precision import widen

__all__ = (
    "truncated_importance_weights",
    "masked_importance_weights",
    "on_policy_rows",
    "top_entropy_mask",
)


def truncated_importance_weights(
    trainer_logps: jax.Array, sampler_logps: jax.Array, *, cap: float
) -> jax.Array:
    """Weights for samples of an engine whose probabilities differ from the trainer's.

      w = min(pi_trainer(a) / pi_sampler(a), cap)

    Multiply the loss by it. For whole responses give summed log-probabilities. No gradient.

    Args:
      trainer_logps: `[...]` nats, of the sampling policy as the trainer computes them.
      sampler_logps: `[...]`, as the engine reported them.
      cap: largest weight, above 0 (2 is usual).

    Returns:
      `[...]`, in [0, cap].

    Raises:
      AssertionError: the shapes differ.
      ValueError: a number outside its range.

    When: sampling runs in another precision or engine than training.
    TRL: `vllm_importance_sampling_correction`, mode `truncate`.
    Source: Espeholt et al. 2018, https://arxiv.org/abs/1802.01561, Sec. 4.1 (rho-bar); for language
      models: Yao et al. 2025, https://fengyao.notion.site/off-policy-rl.

    >>> logps = jnp.log(jnp.array([0.5, 0.5]))
    >>> print(truncated_importance_weights(logps, jnp.log(jnp.array([0.5, 0.1])), cap=2.0))
    [1. 2.]
    """
    return jnp.minimum(_weights(trainer_logps, sampler_logps, cap), cap)


def masked_importance_weights(
    trainer_logps: jax.Array, sampler_logps: jax.Array, *, cap: float
) -> jax.Array:
    """Importance weights with 0 in place of those that exceed the cap.

      w = r if r <= cap else 0,  r = pi_trainer(a) / pi_sampler(a)

    Args:
      trainer_logps: `[...]` nats, of the sampling policy as the trainer computes them.
      sampler_logps: `[...]`, as the engine reported them.
      cap: largest weight, above 0.

    Returns:
      `[...]`, in [0, cap]. No gradient.

    Raises:
      AssertionError: the shapes differ.
      ValueError: a number outside its range.

    When: large mismatches are errors rather than luck.
    TRL: `vllm_importance_sampling_correction`, mode `mask`.
    Source: 2025, https://arxiv.org/abs/2510.18855 (IcePop, masking of mismatched tokens).

    >>> logps = jnp.log(jnp.array([0.5, 0.5]))
    >>> print(masked_importance_weights(logps, jnp.log(jnp.array([0.5, 0.1])), cap=2.0))
    [1. 0.]
    """
    weights = _weights(trainer_logps, sampler_logps, cap)
    return jnp.where(weights <= cap, weights, 0)


def _weights(trainer_logps: jax.Array, sampler_logps: jax.Array, cap: float) -> jax.Array:
    """Importance ratios without gradient; raises `ValueError` for a cap that is not positive."""
    assert_range(ABOVE_ZERO, cap=cap)
    return jax.lax.stop_gradient(probability_ratios(trainer_logps, sampler_logps))


def on_policy_rows(
    logps: jax.Array,
    behaviour_logps: jax.Array,
    mask: jax.Array,
    advantages: jax.Array,
    *,
    threshold: float,
) -> jax.Array:
    """Mask of the responses to keep: all good ones, and bad ones that the policy may still write.

      keep_i = A_i >= 0 or (1 / |y_i|) sum_t (log pi_behaviour - log pi) <= threshold

    Args:
      logps: `[B, T]` nats under the policy that is trained.
      behaviour_logps: `[B, T]` under the policy that acted; get no gradient.
      mask: `[B, T]` bool, true on response tokens.
      advantages: `[B]`.
      threshold: nats per token.

    Returns:
      `[B]` bool.

    Raises:
      AssertionError: the shapes do not fit, or the mask holds real numbers.

    When: many updates from one round of samples.
    TRL: `off_policy_mask_threshold`.
    Source: DeepSeek-AI 2025, https://arxiv.org/abs/2512.02556, off-policy sequence masking.

    >>> logps, mask = jnp.array([[-3.0], [-3.0]]), jnp.ones((2, 1), bool)
    >>> good_and_bad = jnp.array([1.0, -1.0])
    >>> on_policy_rows(logps, jnp.zeros((2, 1)), mask, good_and_bad, threshold=1.0).tolist()
    [True, False]
    """
    assert_rank(2, logps=logps)
    assert_rank(1, advantages=advantages)
    assert_same_shape(logps=logps, behaviour_logps=behaviour_logps, mask=mask)
    mask = flags(mask=mask)
    assert_same_shape(axes=1, logps=logps, advantages=advantages)
    logps, behaviour_logps = widen(logps, behaviour_logps)
    lengths = jnp.maximum(jnp.sum(mask, axis=1), 1)
    drift = masked_sum(behaviour_logps - logps, mask, axis=1) / lengths
    return (advantages >= 0) | (drift <= threshold)


def top_entropy_mask(
    entropies: jax.Array, mask: jax.Array, *, share: float, axis_name: str | None = None
) -> jax.Array:
    """The mask of the tokens at which the policy is least certain.

      m'_it = m_it [H_it >= quantile of all H at 1 - share]

    Args:
      entropies: `[B, T]` nats.
      mask: `[B, T]` bool, true on response tokens.
      share: of the tokens that are kept, in (0, 1].
      axis_name: mapped axis that the rest of the batch is on, or None.

    Returns:
      `[B, T]` bool.

    Raises:
      AssertionError: the shapes differ, or the mask holds real numbers.
      ValueError: a number outside its range.

    When: most tokens are foregone conclusions; reasoning.
    TRL: `top_entropy_quantile`.
    Source: Wang et al. 2025, https://arxiv.org/abs/2506.01939, Eq. 5.

    >>> entropies, mask = jnp.array([[0.1, 2.0, 0.2]]), jnp.ones((1, 3), bool)
    >>> top_entropy_mask(entropies, mask, share=0.5).tolist()
    [[False, True, True]]
    """
    assert_range(SHARE_ABOVE_ZERO, share=share)
    assert_same_shape(entropies=entropies, mask=mask)
    mask = flags(mask=mask)
    (entropies,) = widen(entropies)
    of_batch = gather(jnp.where(mask, entropies, jnp.nan), axis_name)
    threshold = jnp.nanquantile(of_batch, 1 - share)
    return mask & (entropies >= threshold)


def of_tokens(logps: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Log-probabilities of tokens, which have a weight each, and their mask: `[B, T]`."""
    return logps, mask


def of_sequences(logps: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Log-probabilities of responses, which have a weight each, and their mask: `[B]`."""
    return sequence_logps(logps, mask), mask.any(axis=1)


class ImportanceWeights(Protocol):
    """Importance weights with a cap."""

    def __call__(
        self, trainer_logps: jax.Array, sampler_logps: jax.Array, *, cap: float
    ) -> jax.Array: ...


# `(logps [B, T], mask [B, T]) -> (logps, mask)`, both `[B, T]` or `[B]`
ImportanceLevel = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
IMPORTANCE_LEVELS = {"token": of_tokens, "sequence": of_sequences}
IMPORTANCE_MODES = {"truncate": truncated_importance_weights, "mask": masked_importance_weights}
