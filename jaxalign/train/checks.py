"""Debugging of a training step: the first failed condition, and the first operation with a NaN.

`checked` runs a step under `jax.experimental.checkify`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import checkify

from jaxalign.batches.experience import Experience, ResponseBatch
from jaxalign.batches.functions import EvaluateActions, LossFn, LossSums, TextRows, TokenPairs
from jaxalign.numerics.precision import saturation
from jaxalign.numerics.types import Params
from jaxalign.train.step import Batch

REAL = (  # fields of batches that hold real numbers
    *("behaviour_logps", "values", "advantages", "returns", "weights", "margins", "preferences"),
    *("reference", "mismatched_reference", "gold_reference", "reference_logps"),
)


def watched(loss_fn: LossFn) -> LossFn:
    """A loss with conditions on its inputs and outputs, for use under `checked`.

    They fail for an empty batch (weight 0), and for a sum or a metric that is not finite.
    """

    def loss_and_conditions(
        params: Params, batch: Batch, key: jax.Array, **statistics: Any
    ) -> LossSums:
        total, (weight, metrics) = loss_fn(params, batch, key, **statistics)
        checkify.check(weight > 0, "empty mask: the weight of the batch is {w}", w=weight)
        for name, metric in (metrics | {"loss": total}).items():
            value = metric[0] if isinstance(metric, tuple) else metric
            checkify.check(jnp.isfinite(value).all(), name + " is {value}", value=value)
        return total, (weight, metrics)

    return loss_and_conditions


def watched_ratios(evaluate: EvaluateActions) -> EvaluateActions:
    """A policy for PPO with the condition that no ratio leaves the range of its dtype."""

    def logps_and_conditions(
        params: Params, batch: Experience, keys: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        logps, entropy, values = evaluate(params, batch, keys)
        check_ratios(logps, batch)
        return logps, entropy, values

    return logps_and_conditions


def watched_decisions(evaluate: TokenPairs, batch: ResponseBatch) -> TokenPairs:
    """`watched_ratios` for a policy without values, which reads the tokens of this batch alone."""

    def logps_and_conditions(
        params: Params, rows: TextRows, keys: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        logps, entropy = evaluate(params, rows, keys)
        check_ratios(logps, batch)
        return logps, entropy

    return logps_and_conditions


def check_ratios(logps: jax.Array, batch: Experience | ResponseBatch) -> None:
    """Conditions on a policy, for `checked`: no ratio saturates, no log-probability is above 0."""
    knee = saturation(logps.dtype)
    far = jnp.max(jnp.where(batch.mask, logps - batch.behaviour_logps, -jnp.inf))
    checkify.check(
        far <= knee,
        "ratio overflow: a log-ratio of {far} nats, beyond " + f"{knee:.0f} it saturates",
        far=far,
    )
    highest = jnp.max(jnp.where(batch.mask, logps, -jnp.inf))
    checkify.check(highest <= 0, "a log-probability of {highest} is above 0", highest=highest)


def truncated_fields(batch: Batch) -> list[str]:
    """Fields of real numbers whose dtype rounds them: integers, or floats of under 32 bits.

    >>> import numpy as np
    >>> from jaxalign.batches import PreferenceBatch
    >>> pairs = PreferenceBatch(chosen=None, rejected=None, reference=None, weights=np.ones(2, int))
    >>> truncated_fields(pairs)
    ['weights is int32']
    """
    fields: list[str] = []
    for field in dataclasses.fields(batch) if dataclasses.is_dataclass(batch) else ():
        if field.name not in REAL:
            continue
        for leaf in jax.tree.leaves(getattr(batch, field.name)):
            dtype = jnp.result_type(leaf)
            if not jnp.issubdtype(dtype, jnp.floating) or jnp.finfo(dtype).bits < 32:
                fields.append(f"{field.name} is {dtype}")
    return fields


def checked(step: Callable[..., Any], *arguments: Any) -> tuple[str | None, Any]:
    """Errors of a step in words, or None, and its result.

    The first condition that fails, and the first operation that makes a NaN. A NaN that no result
    contains is in a branch that was not taken (0 / 0 where a gradient is 0, say): no error.

    Args:
      step: a function of the arguments, made of a `watched` loss.
      arguments: of the step.

    Returns:
      The messages, joined by "; ", and what `step` returns.
    """
    failed, _ = _run_checked(step, arguments, checkify.user_checks)
    made_nan, result = _run_checked(step, arguments, checkify.nan_checks)
    if not any(map(_has_nan, jax.tree.leaves(result))):
        made_nan = None
    return "; ".join(filter(None, (failed, made_nan))) or None, result


def _run_checked(
    step: Callable[..., Any], arguments: tuple[Any, ...], errors: frozenset[Any]
) -> tuple[str | None, Any]:
    error, result = jax.jit(checkify.checkify(step, errors=errors))(*arguments)
    message = error.get()
    return (None if message is None else message.splitlines()[0]), result


def _has_nan(leaf: jax.Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.floating) and bool(jnp.isnan(leaf).any())
