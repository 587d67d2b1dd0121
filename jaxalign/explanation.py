"""Why a loss is what it is: all that each token of a batch carries into it, and what it gets back.

The model is read once. Its log-probabilities (and values) become a table; the same objective is
evaluated on that table alone, so that its gradient is the weight of every token, and so that the
table provably holds everything the loss depends on.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign.batches import Experience, PreferenceBatch, ResponseBatch, TokenBatch
from jaxalign.losses.grpo import each_token
from jaxalign.losses.ppo import (
    ppo_policy_clipped,
    ppo_value_clipped,
    probability_ratios,
)
from jaxalign.masking import masked_sum
from jaxalign.objectives.group_losses import GroupMethod
from jaxalign.objectives.policy_gradient import advantages_for
from jaxalign.train.step import LossFn, means, metric_means


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sum:
    """A number of the loss and the same from the table: `name`, `loss`, `table`."""

    name: str
    loss: float
    table: float

    @property
    def agrees(self) -> bool:
        """Equal up to the rounding of float32 sums in another order."""
        return bool(abs(self.loss - self.table) <= 1e-5 * max(1.0, abs(self.loss)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sequence:
    """One row of the batch.

    title: which row it is. tokens: `[T]` ids. is_prompt, is_response: `[T]` bool.
    columns: name to `[T]` numbers (or `[T]` strings), meant where `is_response`.
    totals: numbers of the whole row.
    """

    title: str
    tokens: np.ndarray
    is_prompt: np.ndarray
    is_response: np.ndarray
    columns: Mapping[str, np.ndarray]
    totals: Mapping[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Explanation:
    """The loss of a batch with its sequences, metrics and the sums that were compared."""

    loss: float
    weight: float
    metrics: Mapping[str, float]
    sequences: list[Sequence]
    sums: list[Sum]


def mean_loss(loss_fn: LossFn, params, batch, key):
    """`(loss, (weight, metrics))` as a step reports them: sums divided by the weight."""
    total, (weight, sums) = loss_fn(params, batch, key)
    return means(total, weight), (weight, metric_means(sums, weight))


def on_table(loss_fn: LossFn, table, batch, key):
    """The loss of a table of model outputs, and its gradient: what one more nat would change.

    Args:
      loss_fn: the objective, made with a model that returns its parameters (`from_table`).
      table: what the model would return for the rows of the batch.

    Returns:
      `(loss, gradient)`; the gradient has the structure of `table`.
    """

    def loss(table):
        return mean_loss(loss_fn, table, batch, key)[0]

    return jax.value_and_grad(loss)(table)


def from_table(table, rows, keys=None):
    """A model whose parameters are its outputs."""
    del rows, keys
    return table


def explain_pairs(
    make_loss, token_logps, params, batch: PreferenceBatch, reference, *, beta: float, key
) -> Explanation:
    """A preference loss, two sequences a pair.

    Args:
      make_loss: `token_logps -> loss_fn`, an objective of `objectives/preferences.py`.
      token_logps: `(params, TokenBatch, keys) -> [B, T]`, the policy.
      batch: the pairs.
      reference: `(chosen, rejected)`, `[B, T]` each, of the reference; None without one.
      beta: reward units per nat, for the column of implicit rewards.
      key: of the step.
    """
    loss, (weight, metrics) = mean_loss(make_loss(token_logps), params, batch, key)
    sides: Any = (batch.chosen, batch.rejected)
    logps = [token_logps(params, side, None) for side in sides]
    table = jnp.concatenate(logps)
    table_loss, slopes = on_table(make_loss(from_table), table, batch, key)
    slopes = jnp.split(slopes, 2)
    sums = [Sum(name="loss", loss=float(loss), table=float(table_loss))]
    sequences = []
    for name, side, ours, slope, frozen in zip(
        ("chosen", "rejected"), sides, logps, slopes, reference or (None, None), strict=True
    ):
        columns = {"log-probability": ours}
        totals = {"log-probability": masked_sum(ours, side.response_mask, axis=1)}
        if frozen is not None:
            columns |= {"reference": frozen, "log-ratio": ours - frozen}
            columns["reward"] = beta * (ours - frozen)
            totals["reward"] = masked_sum(columns["reward"], side.response_mask, axis=1)
        columns["gradient"] = slope
        totals["gradient"] = masked_sum(slope, side.response_mask, axis=1)
        if f"logps/{name}" in metrics:
            mean = masked_sum(totals["log-probability"], batch.weights) / weight
            label = f"mean log-probability of {name}"
            sums.append(Sum(name=label, loss=float(metrics[f"logps/{name}"]), table=float(mean)))
        if f"rewards/{name}" in metrics and "reward" in totals:
            mean = masked_sum(totals["reward"], batch.weights) / weight
            label = f"mean reward of {name}"
            sums.append(Sum(name=label, loss=float(metrics[f"rewards/{name}"]), table=float(mean)))
        sequences.append(_sequences(name, side, columns, totals))
    both = [sequence for pair in zip(*sequences, strict=True) for sequence in pair]
    return _explanation(loss, weight, metrics, both, sums)


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
            table=float(masked_sum(entropy, mask) / weight),
        )
    )
    rows = _sequences("response", batch.inputs, columns, totals)
    return _explanation(loss, weight, metrics, rows, sums)


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
      batch: of whole groups.
      method: what the batch and the loss were made with.
      recorded: more `[B, T]` columns of the rollout by name (KL, ...).
      totals: more `[B]` numbers of the responses by name (scores).
      key: of the step.
    """
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
    rows = _sequences("response", batch.inputs, columns, every)
    return _explanation(loss, weight, metrics, rows, sums)


def _surrogate_ratios(ratios, batch: ResponseBatch, method: GroupMethod):
    """Ratios whose side of 1 is the side of the clip: of tokens, or of responses."""
    if not method.surrogate.one_ratio:
        return ratios
    return jnp.exp(masked_sum(jnp.log(ratios), batch.mask, axis=1))[:, None]


def explain_texts(make_loss, token_logps, params, batch: TokenBatch, *, key) -> Explanation:
    """Next-token cross-entropy, one sequence a text.

    Args:
      make_loss: `token_logps -> loss_fn`, `objectives.sft`.
      token_logps: `(params, TokenBatch, keys) -> [B, T]`, the policy.
      batch: the texts.
      key: of the step.
    """
    loss, (weight, metrics) = mean_loss(make_loss(token_logps), params, batch, key)
    table = token_logps(params, batch, None)
    table_loss, slopes = on_table(make_loss(from_table), table, batch, key)
    total = masked_sum(table, batch.response_mask, axis=1)
    columns = {"log-probability": table, "gradient": slopes}
    totals = {"log-probability": total, "gradient": masked_sum(slopes, batch.response_mask, axis=1)}
    sums = [
        Sum(name="loss", loss=float(loss), table=float(table_loss)),
        Sum(name="tokens", loss=float(weight), table=float(np.sum(batch.response_mask))),
        Sum(name="mean", loss=float(loss), table=float(-total.sum() / max(float(weight), 1.0))),
    ]
    return _explanation(loss, weight, metrics, _sequences("text", batch, columns, totals), sums)


def _sequences(name: str, rows: TokenBatch, columns, totals) -> list[Sequence]:
    """The rows of a batch, each with its part of the columns."""
    tokens, prompt, response = map(np.asarray, (rows.tokens, rows.prompt_mask, rows.response_mask))
    columns = {key: np.asarray(value) for key, value in columns.items()}
    return [
        Sequence(
            title=f"{name} {number}",
            tokens=tokens[number],
            is_prompt=prompt[number],
            is_response=response[number],
            columns={key: value[number] for key, value in columns.items()},
            totals={key: float(value[number]) for key, value in totals.items()},
        )
        for number in range(len(tokens))
    ]


def _explanation(loss, weight, metrics, sequences, sums) -> Explanation:
    numbers = {name: float(value) for name, value in metrics.items()}
    return Explanation(
        loss=float(loss), weight=float(weight), metrics=numbers, sequences=sequences, sums=sums
    )
