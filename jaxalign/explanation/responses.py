"""Losses on given responses: texts, pairs, and single ones that are labelled."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxalign.batches.preferences import PreferenceBatch, UnpairedBatch
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
from jaxalign.losses.ld_dpo import discounted_excess, public_tokens
from jaxalign.numerics.masking import masked_sum
from jaxalign.train.step import means

LABELS = (("chosen", "good", True), ("rejected", "bad", False))  # in metrics, on the page


def explain_pairs(
    make_loss,
    token_logps,
    params,
    batch: PreferenceBatch,
    reference,
    *,
    beta: float,
    key,
    per_token: bool = False,
    ld_alpha: float | None = None,
) -> Explanation:
    """A preference loss, two sequences a pair.

    Args:
      make_loss: `token_logps -> loss_fn`, an objective of `objectives/preferences.py`.
      token_logps: `(params, TokenBatch, keys) -> [B, T]`, the policy.
      batch: the pairs.
      reference: `(chosen, rejected)`, `[B, T]` each, of the reference; None without one.
      beta: reward units per nat, for the column of implicit rewards.
      key: of the step.
      per_token: the loss compares rewards per token of the response.
      ld_alpha: what a token beyond the shorter response counts in the sums (LD-DPO); None: 1.
    """
    loss, (weight, metrics) = mean_loss(make_loss(token_logps), params, batch, key)
    sides: Any = (batch.chosen, batch.rejected)
    logps = [token_logps(params, side, None) for side in sides]
    table = jnp.concatenate(logps)
    table_loss, slopes = on_table(make_loss(from_table), table, batch, key)
    slopes = jnp.split(slopes, 2)
    sums = [Sum(name="loss", loss=float(loss), table=float(table_loss))]
    public = jnp.minimum(*(side.response_mask.sum(axis=1) for side in sides))
    shown = []
    for name, side, ours, slope, frozen in zip(
        ("chosen", "rejected"), sides, logps, slopes, reference or (None, None), strict=True
    ):
        counts = token_counts(side.response_mask, public, ld_alpha=ld_alpha)
        given = {"beta": beta, "counts": counts, "per_token": per_token}
        columns, totals = beside_reference(side, ours, slope, frozen, **given)
        sums += mean_sums(metrics, name, name, totals, batch.weights)
        shown.append(sequences(name, side, columns, totals))
    both = [sequence for pair in zip(*shown, strict=True) for sequence in pair]
    found = explanation_of(loss, weight, metrics, both, sums)
    if ld_alpha is None:
        return found
    note = f"In sums, tokens beyond the length of the shorter response count {ld_alpha:g} (LD-DPO)."
    return dataclasses.replace(found, notes=(note,))


def explain_unpaired(
    make_loss, token_logps, params, batch: UnpairedBatch, reference, *, beta: float, key
) -> Explanation:
    """A loss on labelled responses, one sequence a response.

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
    loss, (weight, metrics) = mean_loss(make_loss(token_logps), params, batch, key)
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
    columns, totals = beside_reference(
        rows, table, slopes, reference, beta=beta, counts=rows.response_mask
    )
    for metric, word, label in LABELS:
        sums += mean_sums(metrics, metric, word, totals, batch.weights * (batch.labels == label))
    if "bco/reward" in metrics:
        mean = means(masked_sum(totals["reward"], batch.weights), batch.weights.sum())
        sums.append(Sum(name="mean reward", loss=float(metrics["bco/reward"]), table=float(mean)))
    words = [f", labelled {'good' if label else 'bad'}" for label in np.asarray(batch.labels)]
    shown = sequences("response", rows, columns, totals | mismatched, remarks=words)
    return explanation_of(loss, weight, metrics, shown, sums)


def token_counts(response_mask, public, *, ld_alpha: float | None):
    """`[B, T]`: what each token counts in the sum over its response, 1 but for LD-DPO's."""
    if ld_alpha is None:
        return response_mask
    in_full = response_mask & public_tokens(response_mask, public)
    return discounted_excess(response_mask, in_full, alpha=ld_alpha)


def beside_reference(
    rows: TokenBatch, logps, slopes, reference, *, beta: float, counts, per_token: bool = False
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Columns `[B, T]` of responses and their sums `[B]`: the policy, and the reference if there
    is one, with the implicit reward beta x log-ratio.

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


def mean_sums(metrics, metric: str, word: str, totals: Mapping, weights) -> Iterator[Sum]:
    """The means of log-probability and reward that the loss reports as `logps/metric` and
    `rewards/metric`, and the same from sums of the table over the rows of these weights.
    """
    kinds = {"log-probability": "logps", "reward": "rewards", "reward per token": "rewards"}
    for name, kind in kinds.items():
        if name in totals and f"{kind}/{metric}" in metrics:
            mean = means(masked_sum(totals[name], weights), weights.sum())
            shown = float(metrics[f"{kind}/{metric}"])
            yield Sum(name=f"mean {name} of {word}", loss=shown, table=float(mean))


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
    return explanation_of(loss, weight, metrics, sequences("text", batch, columns, totals), sums)
