"""Explanations of policy gradients on sampled responses: PPO, GRPO and its relatives."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign.batches.experience import Experience, ResponseBatch
from jaxalign.batches.tokens import TokenBatch
from jaxalign.explanation.table import (
    Explanation,
    MakeLoss,
    Sum,
    explanation_of,
    from_table,
    mean_loss,
    on_table,
    sequences,
)
from jaxalign.losses.group_methods import GroupMethod
from jaxalign.losses.grpo import each_token
from jaxalign.losses.ppo import (
    ppo_policy_clipped,
    ppo_value_clipped,
    probability_ratios,
)
from jaxalign.numerics.masking import masked_sum
from jaxalign.objectives.policy_gradient import advantages_for


def explain_decisions(
    make_loss: MakeLoss,
    evaluate: Callable[..., Any],
    params: Any,
    batch: Experience,
    *,
    clip: Mapping[str, Any],
    value_clip_range: float | None,
    recorded: Mapping[str, Any],
    key: jax.Array,
) -> Explanation:
    """Explanation of PPO's loss on text, one sequence a response.

    Args:
      make_loss: `evaluate -> loss_fn`, an objective of `objectives/policy_gradient.py`.
      evaluate: `(params, Experience, keys) -> (logps, entropy, values)`.
      params: of the policy.
      batch: of text; its advantages are those the step uses.
      clip: `clip_range` and `dual_clip` of the policy loss.
      value_clip_range: of the value loss.
      recorded: more `[B, T]` columns of the rollout by name (reference, KL, reward, ...).
      key: of the step.
    """
    reported = mean_loss(make_loss(evaluate), params, batch, key)
    loss, (weight, metrics) = reported
    table = evaluate(params, batch, None)
    table_loss, slopes = on_table(make_loss(from_table), table, batch, key)
    clips = {"clip": clip, "value_clip_range": value_clip_range}
    columns = _decision_columns(table, slopes, batch, recorded=recorded, **clips)
    sums = [Sum(name="loss", loss=float(loss), table=float(table_loss))]
    sums += _decision_sums(metrics, columns, batch.mask, max(float(weight), 1.0))
    numeric = ("log-probability", "gradient", *recorded)
    totals = {name: masked_sum(columns[name], batch.mask, axis=1) for name in numeric}
    rows = sequences("response", batch.inputs, columns, totals)
    return explanation_of(reported, rows, sums)


def _decision_columns(
    table: tuple[jax.Array, jax.Array, jax.Array],
    slopes: tuple[jax.Array, jax.Array, jax.Array],
    batch: Experience,
    *,
    clip: Mapping[str, Any],
    value_clip_range: float | None,
    recorded: Mapping[str, Any],
) -> dict[str, Any]:
    """Columns `[B, T]` of PPO's page, from log-probabilities, entropies, values and gradients."""
    logps, entropy, values = table
    ratios = probability_ratios(logps, batch.behaviour_logps)
    clipped = ppo_policy_clipped(logps, batch.behaviour_logps, batch.advantages, **clip)
    value_clipped = ppo_value_clipped(
        values, batch.values, batch.returns, value_clip_range=value_clip_range
    )
    return {
        "log-probability": logps,
        "behaviour": batch.behaviour_logps,
        **recorded,
        "value": batch.values,
        "return": batch.returns,
        "advantage": batch.advantages,
        "ratio": ratios,
        "clipped": np.where(clipped, np.where(np.asarray(ratios) > 1, "above", "below"), ""),
        "entropy": entropy,
        "gradient": slopes[0],
        "new value": values,
        "value clipped": np.where(value_clipped, "flat", ""),
        "value gradient": slopes[2],
    }


def _decision_sums(
    metrics: Mapping[str, Any], columns: Mapping[str, Any], mask: Any, decisions: float
) -> Iterator[Sum]:
    """Clip fractions and mean entropy: as PPO's loss reports them, and from the table."""
    for metric, name in (
        ("ppo/clip_fraction", "clipped"),
        ("ppo/value_clip_fraction", "value clipped"),
    ):
        share = ((columns[name] != "") & np.asarray(mask)).sum() / decisions
        yield Sum(name=f"share {name}", loss=float(metrics[metric]), table=float(share))
    entropy = float(masked_sum(columns["entropy"], mask)) / decisions
    yield Sum(name="mean entropy", loss=float(metrics["ppo/entropy"]), table=entropy)


def explain_responses(
    make_loss: MakeLoss,
    evaluate: Callable[..., Any],
    params: Any,
    batch: ResponseBatch,
    *,
    method: GroupMethod,
    recorded: Mapping[str, Any],
    totals: Mapping[str, Any],
    key: jax.Array,
) -> Explanation:
    """Explanation of a policy gradient without a critic on text, one sequence a response.

    Args:
      make_loss: `evaluate -> loss_fn`, `objectives.group_policy_gradient`.
      evaluate: `(params, TokenBatch, keys) -> (logps, entropy)`.
      params: of the policy.
      batch: of whole groups, a row each response.
      method: what the batch and the loss were made with.
      recorded: more `[B, T]` columns of the rollout by name (KL, ...).
      totals: more `[B]` numbers of the responses by name (scores).
      key: of the step.
    """
    assert isinstance(batch.inputs, TokenBatch), "a text is explained as a row"
    reported = mean_loss(make_loss(evaluate), params, batch, key)
    loss, (_, metrics) = reported
    table = evaluate(params, batch.inputs, None)
    logps, entropy = table
    table_loss, slopes = on_table(make_loss(from_table), table, batch, key)
    advantages = batch.advantages
    columns = {
        "log-probability": logps,
        "behaviour": batch.behaviour_logps,
        "reference": batch.reference_logps,
        **recorded,
        "advantage": advantages if advantages.ndim == 2 else each_token(advantages, logps),
        "trained": np.where(batch.mask, "", "left out"),
        "weight": batch.weights,
        "ratio": probability_ratios(logps, batch.behaviour_logps),
    }
    if method.surrogate.clipped is not None:
        columns["clipped"] = _clipped_side(logps, batch, method)
    columns |= {"entropy": entropy, "gradient": slopes[0]}
    sums = [Sum(name="loss", loss=float(loss), table=float(table_loss))]
    sums += _response_sums(metrics, columns, batch.mask)
    response = batch.inputs.response_mask
    numeric = ("log-probability", "gradient", *recorded)
    every = dict(totals) | {name: masked_sum(columns[name], response, axis=1) for name in numeric}
    rows = sequences("response", batch.inputs, columns, every)
    return explanation_of(reported, rows, sums)


def _response_sums(
    metrics: Mapping[str, Any], columns: Mapping[str, Any], mask: Any
) -> Iterator[Sum]:
    """Clip fraction, mean entropy and ratio: as the loss reports them, and from the table."""
    tokens = max(float(np.sum(mask)), 1.0)
    if "clipped" in columns:
        share, shown = (columns["clipped"] != "").sum() / tokens, metrics["policy/clip_fraction"]
        yield Sum(name="share clipped", loss=float(shown), table=float(share))
    for name in ("entropy", "ratio"):
        mean = float(masked_sum(columns[name], mask)) / tokens
        yield Sum(name=f"mean {name}", loss=float(metrics[f"policy/{name}"]), table=mean)


def _clipped_side(logps: jax.Array, batch: ResponseBatch, method: GroupMethod) -> np.ndarray:
    """Side of the clip range, above or below, of each clipped token, `[B, T]`; empty elsewhere."""
    assert method.surrogate.clipped is not None
    mask: Any = batch.mask
    decision = (logps, batch.behaviour_logps, mask, advantages_for(method, batch))
    clipped = method.surrogate.clipped(*decision, **method.hyperparameters) & mask
    ratios = probability_ratios(logps, batch.behaviour_logps)
    if method.surrogate.one_ratio:
        ratios = jnp.exp(masked_sum(jnp.log(ratios), mask, axis=1))[:, None]
    return np.where(clipped, np.where(np.asarray(ratios) > 1, "above", "below"), "")
