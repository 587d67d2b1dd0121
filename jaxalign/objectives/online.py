"""Losses on fresh responses of the policy, compared by a judge."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxalign.batches.preferences import OnlineBatch, PairLogps
from jaxalign.batches.shared_prompts import shared_sides
from jaxalign.diagnostics import concordance
from jaxalign.logprobs import sequence_logps
from jaxalign.losses.declarations import Loss
from jaxalign.losses.dpo import implicit_rewards
from jaxalign.losses.online_dpo import ranked
from jaxalign.numerics.masking import masked_sum
from jaxalign.numerics.types import Params
from jaxalign.objectives.keys import example_keys
from jaxalign.objectives.preferences import token_logps_of_sides


def online(
    token_logps: Callable[..., Any],
    loss: Loss,
    *,
    score_scale: float = 1.0,
    length: int | None = None,
):
    """Any loss on pairs of fresh responses; weight: pairs.

    A loss that reads a pair (online DPO, XPO) trains on it as the judge ranks it (the papers'
    annotator draws its label); a tie weighs nothing. Nash-MD trains on the policy's own sample by
    its chance to be preferred,
    sigmoid(score_scale (score - score of the opponent's)). Samples, scores and the reference's
    log-probabilities are data: no gradient goes there.

    Args:
      token_logps: `(params, TokenBatch, keys) -> [B, T]` log-probabilities of the policy, at the
        temperature that it was sampled at; with a length `(params, SharedPrompts, keys) ->
        [B, K, R]`.
      loss: a declared one with its hyper-parameters, `XPO` or `NASH_MD.given(beta=0.1)`; or one on
        pairs that reads the log-probabilities of policy and reference alone, for online DPO.
      score_scale: log-odds of a preference for each unit of the scores' difference, for Nash-MD.
      length: the longest response that sampling allowed, in tokens: all begin in one column, and
        their prompt is read once. None: they may stand anywhere, and rows are read one by one.

    Source: Guo et al. 2024, https://arxiv.org/abs/2402.04792, Alg. 1 (online DPO); Xie et al. 2024,
    https://arxiv.org/abs/2405.21046, Alg. 1 (XPO); Munos et al. 2023,
    https://arxiv.org/abs/2312.00886, the policy gradient of Nash-MD.
    """
    uses_pair = loss.needs("policy")

    def loss_fn(params: Params, batch: OnlineBatch, key: jax.Array):
        first, second = batch.first, batch.second
        sides = [side.responses for side in ((first, second) if uses_pair else (first,))]
        if length is None:
            tokens = token_logps_of_sides(sides, token_logps, params, key)
            masks = [side.response_mask for side in sides]
        else:
            rows = shared_sides(sides, longest=length)
            found = token_logps(params, rows, example_keys(key, rows.index))
            tokens, masks = (jnp.unstack(x, axis=1) for x in (found, rows.response_mask))
        logps = [sequence_logps(*side) for side in zip(tokens, masks, strict=True)]
        weights = batch.weights
        inputs: dict[str, Any] = {"policy_logps": logps[0], "reference_logps": first.reference}
        metrics: dict[str, Any] = {}
        if uses_pair:
            scores = first.scores, second.scores
            policy, untied = ranked(logps[0], logps[1], *scores)
            reference, _ = ranked(first.reference, second.reference, *scores)
            inputs |= {
                "policy": policy,
                "reference": reference,
                "reference_sample_logps": logps[1],
            }
            metrics["scores/tied"] = (masked_sum(1 - untied, weights), weights.sum())
            weights = weights * untied
            per_row = _pair_metrics(policy, reference, loss.reward_scale)
        else:
            inputs["preferences"] = jax.nn.sigmoid(score_scale * (first.scores - second.scores))
            per_row = {"nash/preference": inputs["preferences"], "logps/first": logps[0]}
        losses = loss(inputs)
        metrics |= {name: masked_sum(value, weights) for name, value in per_row.items()}
        return masked_sum(losses, weights), (weights.sum(), metrics)

    return loss_fn


def _pair_metrics(policy: PairLogps, reference: PairLogps, beta: float) -> dict[str, jax.Array]:
    """Implicit rewards of the ranked pair, as for pairs from a file."""
    rewards = implicit_rewards(policy, reference, beta=beta)
    margin = rewards.chosen - rewards.rejected
    return {
        "rewards/chosen": rewards.chosen,
        "rewards/rejected": rewards.rejected,
        "rewards/margin": margin,
        "rewards/accuracy": concordance(margin, 0.0),
        "logps/chosen": policy.chosen,
        "logps/rejected": policy.rejected,
    }
