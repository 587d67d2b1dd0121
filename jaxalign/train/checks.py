"""The same step with every operation watched: where the first wrong number comes from.

`checked` runs a step under `jax.experimental.checkify`: the first condition of a sound batch that
fails is named, and the first operation that makes a NaN.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import checkify

from jaxalign.batches.experience import Experience, ResponseBatch
from jaxalign.batches.tokens import TokenBatch
from jaxalign.numerics.precision import saturation
from jaxalign.train.step import LossFn

REAL = (  # fields of batches that hold real numbers
    *("behaviour_logps", "values", "advantages", "returns", "weights", "margins", "preferences"),
    *("reference", "mismatched_reference", "gold_reference", "reference_logps"),
)


def watched(loss_fn: LossFn) -> LossFn:
    """The same loss with conditions on what goes in and comes out, for use under `checked`.

    An empty batch (weight 0), a sum or a metric that is not finite.
    """

    def loss_and_conditions(params, batch, key, **given):
        total, (weight, metrics) = loss_fn(params, batch, key, **given)
        checkify.check(weight > 0, "empty mask: the weight of the batch is {w}", w=weight)
        for name, found in (metrics | {"loss": total}).items():
            value = found[0] if isinstance(found, tuple) else found
            checkify.check(jnp.isfinite(value).all(), name + " is {value}", value=value)
        return total, (weight, metrics)

    return loss_and_conditions


def watched_ratios(evaluate):
    """The same policy for PPO, with the condition that no ratio leaves the range of its dtype."""

    def logps_and_conditions(params, batch: Experience, keys=None):
        logps, entropy, values = evaluate(params, batch, keys)
        check_ratios(logps, batch)
        return logps, entropy, values

    return logps_and_conditions


def watched_decisions(evaluate, batch: ResponseBatch):
    """The same for a policy without values, which reads the tokens of this batch alone."""

    def logps_and_conditions(params, rows: TokenBatch, keys=None):
        logps, entropy = evaluate(params, rows, keys)
        check_ratios(logps, batch)
        return logps, entropy

    return logps_and_conditions


def check_ratios(logps: jax.Array, batch: Experience | ResponseBatch) -> None:
    """The conditions, under `checked`: no ratio saturates, no log-probability is above 0."""
    knee = saturation(logps.dtype)
    far = jnp.max(jnp.where(batch.mask, logps - batch.behaviour_logps, -jnp.inf))
    checkify.check(
        far <= knee,
        "ratio overflow: a log-ratio of {far} nats, beyond " + f"{knee:.0f} it saturates",
        far=far,
    )
    highest = jnp.max(jnp.where(batch.mask, logps, -jnp.inf))
    checkify.check(highest <= 0, "a log-probability of {highest} is above 0", highest=highest)


def truncated_fields(batch: Any) -> list[str]:
    """Fields of real numbers that arrive in a dtype that cuts them: integers, or under 32 bits.

    >>> import numpy as np
    >>> from jaxalign.batches import PreferenceBatch
    >>> pairs = PreferenceBatch(chosen=None, rejected=None, reference=None, weights=np.ones(2, int))
    >>> truncated_fields(pairs)
    ['weights is int32']
    """
    found = []
    for field in dataclasses.fields(batch) if dataclasses.is_dataclass(batch) else ():
        if field.name not in REAL:
            continue
        for leaf in jax.tree.leaves(getattr(batch, field.name)):
            dtype = jnp.result_type(leaf)
            if not jnp.issubdtype(dtype, jnp.floating) or jnp.finfo(dtype).bits < 32:
                found.append(f"{field.name} is {dtype}")
    return found


def checked(step, *arguments) -> tuple[str | None, Any]:
    """What goes wrong in a step, or None, and what the step returns.

    The first condition that fails, and the first operation that makes a NaN. A NaN that no result
    contains is in a branch that was not taken (0 / 0 where a gradient is 0, say): no finding.

    Args:
      step: a function of the arguments, made of a `watched` loss.
      arguments: of the step.
    """
    failed, _ = _run_checked(step, arguments, checkify.user_checks)
    made_nan, result = _run_checked(step, arguments, checkify.nan_checks)
    if not any(map(_has_nan, jax.tree.leaves(result))):
        made_nan = None
    return "; ".join(filter(None, (failed, made_nan))) or None, result


def _run_checked(step, arguments, errors) -> tuple[str | None, Any]:
    error, result = jax.jit(checkify.checkify(step, errors=errors))(*arguments)
    message = error.get()
    return (None if message is None else message.splitlines()[0]), result


def _has_nan(leaf) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.floating) and bool(jnp.isnan(leaf).any())
