"""Diagnostics of the distance between the policy and the one that sampled."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxalign.kl import k1, k3
from jaxalign.numerics.arguments import assert_range, assert_same_shape, flags
from jaxalign.numerics.bounds import ABOVE_ZERO
from jaxalign.numerics.masking import masked_mean, masked_sum, masked_variance
from jaxalign.numerics.precision import saturating_exp, widen

__all__ = (
    "effective_sample_size",
    "explained_variance",
    "ratio_diagnostics",
)


def effective_sample_size(
    log_weights: jax.Array, mask: jax.Array, *, axis_name: str | None = None
) -> jax.Array:
    """Effective sample size of importance weights, as a share of the number of samples.

      ESS / n = (sum_i w_i)^2 / (n sum_i w_i^2)

    The largest weight is divided out first, so nothing overflows.

    Args:
      log_weights: `[...]` nats, log pi - log pi_behaviour.
      mask: `[...]` bool.
      axis_name: mapped axis that the rest of the batch is on, or None.

    Returns:
      A scalar in (0, 1]; 0 where everything is masked.

    Raises:
      AssertionError: the shapes differ, or the mask holds real numbers.

    When: to see whether another update from these samples is worth it.
    TRL: not there.
    Source: Kong 1992, https://stat.uchicago.edu/techreports/tr348.pdf.

    >>> even, mask = jnp.zeros(4), jnp.ones(4, bool)
    >>> float(effective_sample_size(even, mask))
    1.0
    """
    assert_same_shape(log_weights=log_weights, mask=mask)
    mask = flags(mask=mask)
    (log_weights,) = widen(jnp.where(mask, log_weights, -jnp.inf))
    largest = _global_max(log_weights, axis_name)
    weights = jnp.exp(log_weights - largest)
    total = masked_sum(weights, mask, axis_name=axis_name)
    squares = masked_sum(weights**2, mask, axis_name=axis_name)
    count = masked_sum(jnp.ones_like(weights), mask, axis_name=axis_name)
    return total**2 / jnp.where(count > 0, count * squares, 1)


def ratio_diagnostics(
    logps: jax.Array,
    behaviour_logps: jax.Array,
    mask: jax.Array,
    *,
    cap: float,
    axis_name: str | None = None,
) -> dict[str, jax.Array]:
    """Statistics of importance ratios before and after a cap, and KL estimates from them.

      r = pi(a) / pi_behaviour(a);  mean and largest of r and of min(r, cap), share above the cap
      KL(pi_behaviour, pi) ~ mean(-log r)  (k1)  ~ mean(r - 1 - log r)  (k3)

    On policy the mean of r is 1 in expectation: another value is a mismatch of sampler and
    trainer, which the capped mean hides.

    Args:
      logps: `[...]` nats under the policy that is trained.
      behaviour_logps: `[...]` under the policy that acted.
      mask: `[...]` bool.
      cap: above 0.
      axis_name: mapped axis that the rest of the batch is on, or None.

    Returns:
      Scalars `ratio/mean`, `ratio/max`, `ratio/capped_mean`, `ratio/capped_max`,
      `ratio/capped_share`, `ratio/effective_samples`, `ratio/k1` and `ratio/k3`.

    Raises:
      AssertionError: the shapes differ, or the mask holds real numbers.
      ValueError: a number outside its range.

    When: always, beside the loss.
    TRL: `sampling/importance_sampling_ratio/*`, after the cap.
    Source: Schulman et al. 2017, https://arxiv.org/abs/1707.06347, Eq. 6 (r_t).

    >>> zero, mask = jnp.zeros(2), jnp.ones(2, bool)
    >>> float(ratio_diagnostics(zero, zero, mask, cap=2.0)["ratio/mean"])
    1.0
    """
    assert_range(ABOVE_ZERO, cap=cap)
    assert_same_shape(logps=logps, behaviour_logps=behaviour_logps, mask=mask)
    mask = flags(mask=mask)
    logps, behaviour_logps = widen(logps, behaviour_logps)
    log_ratios = jnp.where(mask, logps - behaviour_logps, 0)
    ratios, zero = saturating_exp(log_ratios), jnp.zeros_like(log_ratios)
    means = {
        "ratio/mean": ratios,
        "ratio/capped_mean": jnp.minimum(ratios, cap),
        "ratio/capped_share": ratios > cap,
        "ratio/k1": k1(zero, log_ratios),  # samples are of the behaviour policy: its KL from pi
        "ratio/k3": k3(zero, log_ratios),
    }
    statistics = {
        name: masked_mean(value.astype(ratios.dtype), mask, axis_name=axis_name)
        for name, value in means.items()
    }
    largest = _global_max(jnp.where(mask, ratios, 0), axis_name)
    statistics |= {"ratio/max": largest, "ratio/capped_max": jnp.minimum(largest, cap)}
    ess = effective_sample_size(log_ratios, mask, axis_name=axis_name)
    return statistics | {"ratio/effective_samples": ess}


def explained_variance(
    values: jax.Array, returns: jax.Array, mask: jax.Array, *, axis_name: str | None = None
) -> jax.Array:
    """Explained variance of value predictions: the share of the variance of returns they foresee.

      1 - Var(R - V) / Var(R)

    1 for values that are the returns up to a constant, 0 for constant ones, below 0 for worse.

    Args:
      values: `[...]` V, predicted.
      returns: `[...]` R, in the same units.
      mask: `[...]` bool.
      axis_name: mapped axis that the rest of the batch is on, or None.

    Returns:
      A scalar, at most 1; 0 where the returns do not vary.

    Raises:
      AssertionError: the shapes differ.

    When: beside PPO's value loss, whose size says nothing without that of the returns.
    TRL: not there.
    Source: Huang et al. 2022, https://iclr-blog-track.github.io/2022/03/25/ppo-implementation-details/,
    debug variables.

    >>> returns, mask = jnp.array([1.0, 2.0, 3.0]), jnp.ones(3, bool)
    >>> float(explained_variance(returns + 5, returns, mask))
    1.0
    """
    assert_same_shape(values=values, returns=returns, mask=mask)
    mask = flags(mask=mask)
    values, returns = widen(values, returns)
    total = masked_variance(returns, mask, ddof=0, axis_name=axis_name)
    rest = masked_variance(returns - values, mask, ddof=0, axis_name=axis_name)
    explained = 1 - rest / jnp.where(total > 0, total, 1)
    return jnp.where(total > 0, explained, 0)


def _global_max(x: jax.Array, axis_name: str | None) -> jax.Array:
    """Largest entry over all axes and devices, without gradient."""
    largest = jnp.max(jax.lax.stop_gradient(x))
    return largest if axis_name is None else jax.lax.pmax(largest, axis_name)


def concordance(first: Any, second: Any) -> Any:
    """Whether the first of two scores is the larger: 1 where it is, 1/2 where they are equal.

      c = 1[s_1 > s_2] + 1[s_1 = s_2] / 2

    Its mean over pairs whose first text people prefer is the accuracy of the scores.

    Args:
      first, second: `[...]` scores, of NumPy or jax, or numbers.

    Returns:
      `[...]` in [0, 1], of the same kind.

    >>> import numpy as np
    >>> concordance(np.array([2.0, 1.0, 0.0]), np.ones(3)).tolist()
    [1.0, 0.5, 0.0]
    """
    return (first > second) + 0.5 * (first == second)
