"""Policy gradients on sampled responses: PPO's decisions, and groups without a critic."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxalign.batches.experience import Experience, ResponseBatch
from jaxalign.batches.tokens import TokenBatch
from jaxalign.explanation.table import (
    Explanation,
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
    make_loss,
    evaluate,
    params,
    batch: Experience,
    *,
    clip: Mapping[str, Any],
    value_clip_range: float | None,
    recorded: Mapping[str, Any],
    key,
) -> Explanation:
    """PPO's loss on text, one sequence a response.

    Args:
      make_loss: `evaluate -> loss_fn`, an objective of `objectives/policy_gradient.py`.
      evaluate: `(params, Experience, keys) -> (logps, entropy, values)`.
      batch: of text; its advantages are those the step uses.
      clip: `clip_range` and `dual_clip` of the policy loss.
      value_clip_range: of the value loss.
      recorded: more `[B, T]` columns of the rollout by name (reference, KL, reward, ...).
      key: of the step.
    """
    loss, (weight, metrics) = mean_loss(make_loss(evaluate), params, batch, key)
    table = evaluate(params, batch, None)
    logps, entropy, values = table
    table_loss, slopes = on_table(make_loss(from_table), table, batch, key)
    ratios = probability_ratios(logps, batch.behaviour_logps)
    decision = (logps, batch.behaviour_logps, batch.advantages)
    clipped = ppo_policy_clipped(*decision, **clip)
    value_clipped = ppo_value_clipped(
        values, batch.values, batch.returns, value_clip_range=value_clip_range
    )
    columns = {
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
    mask: Any = batch.mask
    numeric = ("log-probability", "gradient", *recorded)
    totals = {name: masked_sum(columns[name], mask, axis=1) for name in numeric}
    sums = [Sum(name="loss", loss=float(loss), table=float(table_loss))]
    for metric, name in (
        ("ppo/clip_fraction", "clipped"),
        ("ppo/value_clip_fraction", "value clipped"),
    ):
        share = ((columns[name] != "") & np.asarray(mask)).sum() / max(float(weight), 1.0)
        sums.append(Sum(name=f"share {name}", loss=float(metrics[metric]), table=float(share)))
    sums.append(
        Sum(
            name="mean entropy",
            loss=float(metrics["ppo/entropy"]),
            table=float(masked_sum(entropy, mask)) / max(float(weight), 1.0),
        )
    )
    rows = sequences("response", batch.inputs, columns, totals)
    return explanation_of(loss, weight, metrics, rows, sums)


def explain_responses(
    make_loss,
    evaluate,
    params,
    batch: ResponseBatch,
    *,
    method: GroupMethod,
    recorded: Mapping[str, Any],
    totals: Mapping[str, Any],
    key,
) -> Explanation:
    """A critic-free policy gradient on text, one sequence a response.

    Args:
      make_loss: `evaluate -> loss_fn`, `objectives.group_policy_gradient`.
      evaluate: `(params, TokenBatch, keys) -> (logps, entropy)`.
      batch: of whole groups, a row each response.
      method: what the batch and the loss were made with.
      recorded: more `[B, T]` columns of the rollout by name (KL, ...).
      totals: more `[B]` numbers of the responses by name (scores).
      key: of the step.
    """
    assert isinstance(batch.inputs, TokenBatch), "a text is explained as a row"
    loss, (weight, metrics) = mean_loss(make_loss(evaluate), params, batch, key)
    table = evaluate(params, batch.inputs, None)
    logps, entropy = table
    table_loss, slopes = on_table(make_loss(from_table), table, batch, key)
    ratios = probability_ratios(logps, batch.behaviour_logps)
    advantages = batch.advantages
    columns = {
        "log-probability": logps,
        "behaviour": batch.behaviour_logps,
        "reference": batch.reference_logps,
        **recorded,
        "advantage": advantages if advantages.ndim == 2 else each_token(advantages, logps),
        "trained": np.where(batch.mask, "", "left out"),
        "weight": batch.weights,
        "ratio": ratios,
    }
    mask: Any = batch.mask
    counted = max(float(np.sum(mask)), 1.0)
    sums = [Sum(name="loss", loss=float(loss), table=float(table_loss))]
    if method.surrogate.clipped is not None:
        decision = (logps, batch.behaviour_logps, mask, advantages_for(method, batch))
        clipped = method.surrogate.clipped(*decision, **method.hyperparameters) & mask
        side = np.where(np.asarray(_surrogate_ratios(ratios, batch, method)) > 1, "above", "below")
        columns["clipped"] = np.where(clipped, side, "")
        share = (columns["clipped"] != "").sum() / counted
        shown = float(metrics["policy/clip_fraction"])
        sums.append(Sum(name="share clipped", loss=shown, table=float(share)))
    columns |= {"entropy": entropy, "gradient": slopes[0]}
    for name, column in (("entropy", entropy), ("ratio", ratios)):
        mean = float(masked_sum(column, mask)) / counted
        sums.append(Sum(name=f"mean {name}", loss=float(metrics[f"policy/{name}"]), table=mean))
    response = batch.inputs.response_mask
    numeric = ("log-probability", "gradient", *recorded)
    every = dict(totals) | {name: masked_sum(columns[name], response, axis=1) for name in numeric}
    rows = sequences("response", batch.inputs, columns, every)
    return explanation_of(loss, weight, metrics, rows, sums)


def _surrogate_ratios(ratios, batch: ResponseBatch, method: GroupMethod):
    """Ratios whose side of 1 is the side of the clip: of tokens, or of responses."""
    if not method.surrogate.one_ratio:
        return ratios
    return jnp.exp(masked_sum(jnp.log(ratios), batch.mask, axis=1))[:, None]
