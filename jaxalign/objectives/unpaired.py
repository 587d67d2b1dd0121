"""Losses on single responses that are labelled good or bad."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxalign.batches.preferences import UnpairedBatch
from jaxalign.errors import UserError
from jaxalign.logprobs import sequence_logps
from jaxalign.losses.declarations import Loss
from jaxalign.losses.kto import log_ratio_sums, reference_point
from jaxalign.numerics.collectives import psum
from jaxalign.numerics.masking import masked_sum
from jaxalign.objectives.keys import example_keys


def unpaired(token_logps, loss: Loss, *, axis_name: str | None = None):
    """Any loss on labelled responses; weight: responses.

    The metrics `rewards/*` are implicit rewards, beta (log pi - log pi_ref); chosen and rejected
    are the means over the responses labelled good and bad.

    KTO's KL is of the whole batch. Where the loss sees it in micro-batches, let `train_step` add
    the KL up beforehand: `measure=mismatched_log_ratios(token_logps)`.

    Args:
      token_logps: `(params, TokenBatch, keys) -> [B, T]` log-probabilities of the policy.
      loss: a declared one with its hyper-parameters, `KTO` or `BCO.given(beta=0.3)`.
      axis_name: mapped axis that the other devices' rows are on, for KTO's KL where nothing has
        been measured.
    """
    measure = mismatched_log_ratios(token_logps)

    def loss_fn(params, batch: UnpairedBatch, key, statistics=None, measured=None):
        policy = _summed_logps(token_logps, params, batch.responses, jax.random.fold_in(key, 0))
        inputs: dict[str, Any] = {
            "policy_logps": policy,
            "reference_logps": batch.reference,
            "labels": batch.labels,
            "shift": jnp.float32(0) if statistics is None else statistics["shift"],
        }
        if loss.needs("kl"):
            if measured is None:
                measured = psum(measure(params, batch, key), axis_name)
            inputs["kl"] = reference_point(*measured)
        losses = loss(inputs)
        rewards = loss.hyperparameters["beta"] * (policy - batch.reference)
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


def mismatched_log_ratios(token_logps):
    """What KTO's KL is made of, for `train_step(measure=...)`: a sum of log-ratios, their weight.

    Args:
      token_logps: as in `unpaired`.
    """

    def measure(params, batch: UnpairedBatch, key):
        if batch.mismatched is None or batch.mismatched_reference is None:
            raise UserError("KTO's KL needs mismatched responses in batch.mismatched")
        frozen, key = jax.lax.stop_gradient(params), jax.random.fold_in(key, 1)
        policy = _summed_logps(token_logps, frozen, batch.mismatched, key)
        return log_ratio_sums(policy, batch.mismatched_reference, batch.weights)

    return measure


def _summed_logps(token_logps, params, rows, key):
    tokens = token_logps(params, rows, example_keys(key, rows.index))
    return sequence_logps(tokens, rows.response_mask)
