"""Losses on single responses that are labelled good or bad."""

from collections.abc import Callable
from typing import Any

import jax

from jaxalign.batches.preferences import UnpairedBatch
from jaxalign.batches.tokens import TokenBatch
from jaxalign.errors import UserError
from jaxalign.logprobs import sequence_logps
from jaxalign.losses.bco import implicit_reward_sums, no_shift, shift_after
from jaxalign.losses.declarations import Loss
from jaxalign.losses.kto import log_ratio_sums, reference_point
from jaxalign.numerics.collectives import psum
from jaxalign.numerics.masking import masked_sum
from jaxalign.numerics.types import Params, Tree
from jaxalign.objectives.keys import example_keys


def unpaired(token_logps: Callable[..., Any], loss: Loss, *, axis_name: str | None = None):
    """Any loss on labelled responses; weight: responses.

    The metrics `rewards/*` are implicit rewards, beta (log pi - log pi_ref); chosen and rejected
    are the means over the responses labelled good and bad.

    KTO's KL and BCO's shift are of the whole batch. Where the loss sees it in micro-batches, let
    `train_step` add them up beforehand: `measure=unpaired_sums(token_logps, loss)`; for BCO, whose
    shift is of all batches before as well, with `track=shift_after`.

    Args:
      token_logps: `(params, TokenBatch, keys) -> [B, T]` log-probabilities of the policy.
      loss: a declared one with its hyper-parameters, `KTO` or `BCO.given(beta=0.3)`.
      axis_name: mapped axis that the other devices' rows are on, for KTO's KL where nothing has
        been measured.
    """
    measure = unpaired_sums(token_logps, loss)

    def loss_fn(
        params: Params,
        batch: UnpairedBatch,
        key: jax.Array,
        statistics: Tree = None,
        measured: Any = None,
    ):
        policy = _summed_logps(token_logps, params, batch.responses, jax.random.fold_in(key, 0))
        inputs: dict[str, Any] = {
            "policy_logps": policy,
            "reference_logps": batch.reference,
            "labels": batch.labels,
        }
        if measured is None:
            measured = None if measure is None else psum(measure(params, batch, key), axis_name)
        if loss.needs("kl"):
            inputs["kl"] = reference_point(*measured)
        if loss.needs("shift"):
            inputs["shift"] = shift_after(statistics or no_shift(), measured).mean
        losses = loss(inputs)
        rewards = loss.reward_scale * (policy - batch.reference)
        metrics: dict[str, Any] = {}
        for side, label in (("chosen", True), ("rejected", False)):
            weights = batch.weights * (batch.labels == label)
            for name, value in (("rewards", rewards), ("logps", policy)):
                metrics[f"{name}/{side}"] = (masked_sum(value, weights), weights.sum())
        batch_numbers = {"kl/reference": "kl", "bco/shift": "shift"}
        for name, number in batch_numbers.items():
            if loss.needs(number):
                metrics[name] = inputs[number] * batch.weights.sum()
        if loss.needs("shift"):
            metrics["bco/reward"] = masked_sum(rewards, batch.weights)
        return masked_sum(losses, batch.weights), (batch.weights.sum(), metrics)

    return loss_fn


def unpaired_sums(token_logps: Callable[..., Any], loss: Loss):
    """What a loss reads of the whole batch, for `train_step(measure=...)`: for KTO the sum and the
    number of mismatched log-ratios, for BCO of implicit rewards; None for one that reads neither.

    Args:
      token_logps, loss: as in `unpaired`.
    """
    if loss.needs("kl"):
        return _mismatched_log_ratios(token_logps)
    if loss.needs("shift"):
        return _rewards(token_logps, loss.reward_scale)
    return None


def _rewards(token_logps: Callable[..., Any], beta: float):
    def measure(params: Params, batch: UnpairedBatch, key: jax.Array):
        frozen, key = jax.lax.stop_gradient(params), jax.random.fold_in(key, 0)
        policy = _summed_logps(token_logps, frozen, batch.responses, key)
        return implicit_reward_sums(beta * (policy - batch.reference), batch.weights)

    return measure


def _mismatched_log_ratios(token_logps: Callable[..., Any]):
    def measure(params: Params, batch: UnpairedBatch, key: jax.Array):
        if batch.mismatched is None or batch.mismatched_reference is None:
            raise UserError("KTO's KL needs mismatched responses in batch.mismatched")
        frozen, key = jax.lax.stop_gradient(params), jax.random.fold_in(key, 1)
        policy = _summed_logps(token_logps, frozen, batch.mismatched, key)
        return log_ratio_sums(policy, batch.mismatched_reference, batch.weights)

    return measure


def _summed_logps(
    token_logps: Callable[..., Any], params: Params, rows: TokenBatch, key: jax.Array
):
    tokens = token_logps(params, rows, example_keys(key, rows.index))
    return sequence_logps(tokens, rows.response_mask)
