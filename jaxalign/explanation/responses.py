"""Explanations of SFT, of losses on pairs and of losses on labelled responses."""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign.batches.preferences import PreferenceBatch, UnpairedBatch
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
from jaxalign.losses.ld_dpo import discounted_excess, public_tokens
from jaxalign.numerics.masking import masked_sum
from jaxalign.train.step import means

LABELS = (("chosen", "good", True), ("rejected", "bad", False))  # in metrics, on the page


def explain_pairs(
    make_loss: MakeLoss,
    token_logps: Callable[..., Any],
    params: Any,
    batch: PreferenceBatch,
    *,
    reference: tuple[jax.Array, jax.Array] | None,
    beta: float,
    key: jax.Array,
    per_token: bool = False,
    ld_alpha: float | None = None,
) -> Explanation:
    """Explanation of a preference loss, two sequences a pair.

    Args:
      make_loss: `token_logps -> loss_fn`, an objective of `objectives/preferences.py`.
      token_logps: `(params, TokenBatch, keys) -> [B, T]`, the policy; a tuple of these and of what
        else the objective reads, for WPO.
      batch: the pairs.
      reference: `(chosen, rejected)`, `[B, T]` each, of the reference; None without one.
      beta: reward units per nat, for the column of implicit rewards.
      key: of the step.
      per_token: the loss compares rewards per token of the response.
      ld_alpha: what a token beyond the shorter response counts in the sums (LD-DPO); None: 1.
    """
    reported = mean_loss(make_loss(token_logps), params, batch, key)
    loss, (_, metrics) = reported
    sides: Any = (batch.chosen, batch.rejected)
    outputs = [token_logps(params, side, None) for side in sides]
    table = jax.tree.map(lambda *arrays: jnp.concatenate(arrays), *outputs)
    table_loss, gradient = on_table(make_loss(from_table), table, batch, key)
    logps, slopes = (jnp.split(jax.tree.leaves(x)[0], 2) for x in (table, gradient))
    sums = [Sum(name="loss", loss=float(loss), table=float(table_loss))]
    public = jnp.minimum(*(side.response_mask.sum(axis=1) for side in sides))
    shown = []
    for name, side, ours, slope, frozen in zip(
        ("chosen", "rejected"), sides, logps, slopes, reference or (None, None), strict=True
    ):
        counts = token_counts(side.response_mask, public, ld_alpha=ld_alpha)
        given = {"beta": beta, "counts": counts, "per_token": per_token}
        columns, totals = response_columns(side, ours, slope, frozen, **given)
        sums += mean_sums(metrics, (name, name), totals, batch.weights)
        shown.append(sequences(name, side, columns, totals))
    both = [sequence for pair in zip(*shown, strict=True) for sequence in pair]
    if ld_alpha is None:
        return explanation_of(reported, both, sums)
    note = f"In sums, tokens beyond the length of the shorter response count {ld_alpha:g} (LD-DPO)."
    return explanation_of(reported, both, sums, notes=(note,))


def explain_unpaired(
    make_loss: MakeLoss,
    token_logps: Callable[..., jax.Array],
    params: Any,
    batch: UnpairedBatch,
    *,
    reference: jax.Array | None,
    beta: float,
    key: jax.Array,
) -> Explanation:
    """Explanation of a loss on labelled responses, one sequence a response.

    KTO's KL is a number of the batch, of mismatched responses that get no gradient: the loss of
    the table is given the KL that is made here of the policy's log-probabilities of them.

    Args:
      make_loss: `token_logps -> loss_fn`, an objective of `objectives/unpaired.py`.
      token_logps: `(params, TokenBatch, keys) -> [B, T]`, the policy.
      batch: the responses.
      reference: `[B, T]`, of the reference.
      beta: reward units per nat, for the column of implicit rewards.
      key: of the step.
    """
    reported = mean_loss(make_loss(token_logps), params, batch, key)
    loss, (_, metrics) = reported
    rows, on_rows = batch.responses, make_loss(from_table)
    mismatched, sums = {}, []
    if batch.mismatched is not None and batch.mismatched_reference is not None:
        theirs = token_logps(params, batch.mismatched, None)
        summed = masked_sum(theirs, batch.mismatched.response_mask, axis=1)
        mismatched["mismatched log-ratio"] = ratios = summed - batch.mismatched_reference
        measured = (masked_sum(ratios, batch.weights), batch.weights.sum())
        on_rows = functools.partial(on_rows, measured=measured)
        kl = max(float(means(*measured)), 0.0)
        sums.append(Sum(name="KL", loss=float(metrics["kl/reference"]), table=kl))
    table = token_logps(params, rows, None)
    table_loss, slopes = on_table(on_rows, table, batch, key)
    sums = [Sum(name="loss", loss=float(loss), table=float(table_loss)), *sums]
    columns, totals = response_columns(
        rows, table, slopes, reference, beta=beta, counts=rows.response_mask
    )
    for metric, word, label in LABELS:
        rows_of_label = batch.weights * (batch.labels == label)
        sums += mean_sums(metrics, (metric, word), totals, rows_of_label)
    if "bco/reward" in metrics:
        mean = means(masked_sum(totals["reward"], batch.weights), batch.weights.sum())
        sums.append(Sum(name="mean reward", loss=float(metrics["bco/reward"]), table=float(mean)))
    words = [f", labelled {'good' if label else 'bad'}" for label in np.asarray(batch.labels)]
    shown = sequences("response", rows, columns, totals | mismatched, remarks=words)
    return explanation_of(reported, shown, sums)


def token_counts(
    response_mask: jax.Array, public: jax.Array, *, ld_alpha: float | None
) -> jax.Array:
    """Weight `[B, T]` of each token in the sum over its response, 1 but for LD-DPO's."""
    if ld_alpha is None:
        return response_mask
    in_full = response_mask & public_tokens(response_mask, public)
    return discounted_excess(response_mask, in_full, alpha=ld_alpha)


def response_columns(
    rows: TokenBatch,
    logps: jax.Array,
    slopes: jax.Array,
    reference: jax.Array | None,
    *,
    beta: float,
    counts: jax.Array,
    per_token: bool = False,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Log-probabilities, log-ratios and implicit rewards of tokens `[B, T]`, and their sums `[B]`.

    Args:
      rows: the responses.
      logps, reference: `[B, T]` nats; None without a reference.
      slopes: `[B, T]`, the gradient of the loss.
      beta: reward units per nat.
      counts: `[B, T]`, what each token counts in the sums of log-probability and reward.
      per_token: the reward of a response is divided by its tokens.
    """
    columns = {"log-probability": logps}
    totals = {"log-probability": masked_sum(logps, counts, axis=1)}
    if reference is not None:
        ratios = logps - reference
        columns |= {"reference": reference, "log-ratio": ratios, "reward": beta * ratios}
        total = masked_sum(columns["reward"], counts, axis=1)
        lengths = jnp.maximum(rows.response_mask.sum(axis=1), 1)
        totals |= {"reward per token": total / lengths} if per_token else {"reward": total}
    columns["gradient"] = slopes
    return columns, totals | {"gradient": masked_sum(slopes, rows.response_mask, axis=1)}


def mean_sums(
    metrics: Mapping[str, Any],
    names: tuple[str, str],
    totals: Mapping[str, Any],
    weights: jax.Array,
) -> Iterator[Sum]:
    """Mean log-probability and reward: as the loss reports them, and from the table.

    Args:
      metrics: of the loss, `logps/METRIC` and `rewards/METRIC` among them.
      names: METRIC, and what the page calls those rows.
      totals: `[B]` sums of the table's columns by name.
      weights: `[B]` of the rows that are meant.
    """
    metric, word = names
    kinds = {"log-probability": "logps", "reward": "rewards", "reward per token": "rewards"}
    for name, kind in kinds.items():
        if name in totals and f"{kind}/{metric}" in metrics:
            mean = means(masked_sum(totals[name], weights), weights.sum())
            shown = float(metrics[f"{kind}/{metric}"])
            yield Sum(name=f"mean {name} of {word}", loss=shown, table=float(mean))


def explain_texts(
    make_loss: MakeLoss,
    token_logps: Callable[..., jax.Array],
    params: Any,
    batch: TokenBatch,
    *,
    key: jax.Array,
) -> Explanation:
    """Explanation of next-token cross-entropy, one sequence a text.

    Args:
      make_loss: `token_logps -> loss_fn`, `objectives.sft`.
      token_logps: `(params, TokenBatch, keys) -> [B, T]`, the policy.
      batch: the texts.
      key: of the step.
    """
    reported = mean_loss(make_loss(token_logps), params, batch, key)
    loss, (weight, _) = reported
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
    return explanation_of(reported, sequences("text", batch, columns, totals), sums)
