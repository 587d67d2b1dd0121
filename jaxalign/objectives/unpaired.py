"""Objectives on single responses that are labelled good or bad."""

from typing import Any

import jax

from jaxalign.batches.functions import BatchSums, LossFn, LossSums, Metrics, TokenLogps
from jaxalign.batches.preferences import UnpairedBatch
from jaxalign.batches.tokens import TokenBatch
from jaxalign.errors import UserError
from jaxalign.logprobs import sequence_logps
from jaxalign.losses.bco import RunningMean, implicit_reward_sums
from jaxalign.losses.declarations import Loss
from jaxalign.losses.kto import log_ratio_sums, reference_point
from jaxalign.numerics.collectives import psum
from jaxalign.numerics.masking import masked_sum
from jaxalign.numerics.types import Params
from jaxalign.objectives.keys import example_keys
from jaxalign.objectives.shift import batch_shift


def unpaired(token_logps: TokenLogps, loss: Loss, *, axis_name: str | None = None) -> LossFn:
    """Objective of a declared loss on labelled responses; weight: responses.

    The metrics `rewards/*` are implicit rewards, beta (log pi - log pi_ref); chosen and rejected
    are the means over the responses labelled good and bad.

    KTO's KL and BCO's shift are of the whole batch. Where the loss sees it in micro-batches, let
    `train_step` add them up beforehand: `measure=unpaired_sums(token_logps, loss)`. BCO's shift is
    of all batches before as well: `track=shift_after_batch`.

    Args:
      token_logps: `(params, TokenBatch, keys) -> [B, T]` log-probabilities of the policy.
      loss: a declared one with its hyper-parameters, `KTO` or `BCO.given(beta=0.3)`.
      axis_name: mapped axis that the other devices' rows are on, for the two where nothing has been
        measured beforehand.
    """
    beta = loss.reward_scale

    def loss_fn(
        params: Params,
        batch: UnpairedBatch,
        key: jax.Array,
        statistics: RunningMean | None = None,
        measured: Any = None,
    ) -> LossSums:
        policy = _response_logps(token_logps, params, batch.responses, jax.random.fold_in(key, 0))
        rewards = beta * (policy - batch.reference)
        inputs: dict[str, Any] = {
            "policy_logps": policy,
            "reference_logps": batch.reference,
            "labels": batch.labels,
        }
        metrics = _metrics_of_labels(batch, {"rewards": rewards, "logps": policy})
        rows = batch.weights.sum()
        if loss.needs("kl"):
            if measured is None:
                measured = psum(_mismatched_ratios(token_logps, params, batch, key), axis_name)
            kl = inputs["kl"] = reference_point(*measured)
            metrics["kl/reference"] = kl * rows
        if loss.needs("shift"):
            own = implicit_reward_sums(rewards, batch.weights)
            shift = inputs["shift"] = batch_shift(
                own, before=statistics, measured=measured, axis_name=axis_name
            )
            metrics |= {"bco/shift": shift * rows, "bco/reward": own}
        return masked_sum(loss(inputs), batch.weights), (rows, metrics)

    return loss_fn


def unpaired_sums(token_logps: TokenLogps, loss: Loss) -> BatchSums | None:
    """Sums over a whole batch that a loss reads, for `train_step(measure=...)`: for KTO the sum and
    the number of mismatched log-ratios, for BCO of implicit rewards; None for one that reads
    neither.

    Args:
      token_logps, loss: as in `unpaired`.
    """

    def mismatched(params: Params, batch: UnpairedBatch, key: jax.Array):
        return _mismatched_ratios(token_logps, params, batch, key)

    def rewards(params: Params, batch: UnpairedBatch, key: jax.Array):
        frozen, key = jax.lax.stop_gradient(params), jax.random.fold_in(key, 0)
        policy = _response_logps(token_logps, frozen, batch.responses, key)
        beta = loss.reward_scale
        return implicit_reward_sums(beta * (policy - batch.reference), batch.weights)

    if loss.needs("kl"):
        return mismatched
    return rewards if loss.needs("shift") else None


def _metrics_of_labels(batch: UnpairedBatch, per_row: dict[str, jax.Array]) -> Metrics:
    """Sums over the responses labelled good (chosen) and bad (rejected), each with its weight."""
    metrics: Metrics = {}
    for side, label in (("chosen", True), ("rejected", False)):
        weights = batch.weights * (batch.labels == label)
        for name, value in per_row.items():
            metrics[f"{name}/{side}"] = (masked_sum(value, weights), weights.sum())
    return metrics


def _mismatched_ratios(
    token_logps: TokenLogps, params: Params, batch: UnpairedBatch, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The sum and the number of KTO's log-ratios of responses to other prompts; no gradient."""
    if batch.mismatched is None or batch.mismatched_reference is None:
        raise UserError("KTO's KL needs mismatched responses in batch.mismatched")
    frozen, key = jax.lax.stop_gradient(params), jax.random.fold_in(key, 1)
    policy = _response_logps(token_logps, frozen, batch.mismatched, key)
    return log_ratio_sums(policy, batch.mismatched_reference, batch.weights)


def _response_logps(
    token_logps: TokenLogps, params: Params, rows: TokenBatch, key: jax.Array
) -> jax.Array:
    tokens = token_logps(params, rows, example_keys(key, rows.index))
    return sequence_logps(tokens, rows.response_mask)
