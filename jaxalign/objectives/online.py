"""Objectives on fresh responses of the policy, ranked by a reward model."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from jaxalign.batches.functions import LossFn, LossSums, TokenLogps
from jaxalign.batches.preferences import OnlineBatch, ScoredResponses
from jaxalign.batches.shared_prompts import shared_sides
from jaxalign.logprobs import sequence_logps
from jaxalign.losses.declarations import Loss
from jaxalign.losses.dpo import implicit_rewards
from jaxalign.losses.online_dpo import ranked
from jaxalign.numerics.masking import masked_sum
from jaxalign.numerics.types import Params
from jaxalign.objectives.keys import example_keys
from jaxalign.objectives.metrics import pair_metrics
from jaxalign.objectives.preferences import token_logps_of_sides

# `(params, samples, key) -> [B]` log-probabilities of each of the samples
SampleLogps = Callable[[Params, Sequence[ScoredResponses], jax.Array], list[jax.Array]]


def online(
    token_logps: TokenLogps,
    loss: Loss,
    *,
    score_scale: float = 1.0,
    length: int | None = None,
) -> LossFn:
    """Objective of a declared loss on pairs of fresh responses; weight: pairs.

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
    logps_of = _sample_logps(token_logps, length)
    if loss.needs("policy"):
        return _on_ranked_pairs(logps_of, loss)
    return _on_own_samples(logps_of, loss, score_scale)


def _on_ranked_pairs(logps_of: SampleLogps, loss: Loss) -> LossFn:
    """Objective of a loss on both samples, the better one as chosen; weight: pairs but for ties."""

    def loss_fn(params: Params, batch: OnlineBatch, key: jax.Array) -> LossSums:
        first, second = batch.first, batch.second
        logps, scores = logps_of(params, (first, second), key), (first.scores, second.scores)
        policy, untied = ranked(logps[0], logps[1], *scores)
        reference, _ = ranked(first.reference, second.reference, *scores)
        losses = loss(
            {
                "policy": policy,
                "reference": reference,
                "policy_logps": logps[0],
                "reference_logps": first.reference,
                "reference_sample_logps": logps[1],
            }
        )
        weights = batch.weights * untied
        rewards = implicit_rewards(policy, reference, beta=loss.reward_scale)
        per_pair = pair_metrics(policy, rewards)
        metrics = {name: masked_sum(value, weights) for name, value in per_pair.items()}
        ties = (masked_sum(1 - untied, batch.weights), batch.weights.sum())
        return masked_sum(losses, weights), (weights.sum(), metrics | {"scores/tied": ties})

    return loss_fn


def _on_own_samples(logps_of: SampleLogps, loss: Loss, score_scale: float) -> LossFn:
    """Objective of a loss on the policy's sample by its chance to be preferred; weight: samples."""

    def loss_fn(params: Params, batch: OnlineBatch, key: jax.Array) -> LossSums:
        first, second, weights = batch.first, batch.second, batch.weights
        (logps,) = logps_of(params, (first,), key)
        preferences = jax.nn.sigmoid(score_scale * (first.scores - second.scores))
        losses = loss(
            {
                "policy_logps": logps,
                "reference_logps": first.reference,
                "preferences": preferences,
            }
        )
        metrics = {
            "nash/preference": masked_sum(preferences, weights),
            "logps/first": masked_sum(logps, weights),
        }
        return masked_sum(losses, weights), (weights.sum(), metrics)

    return loss_fn


def _sample_logps(token_logps: TokenLogps, length: int | None) -> SampleLogps:
    """Log-probabilities of whole samples, from rows one by one or, with a length, behind their
    prompts, each read once.
    """

    def logps_of(params: Params, samples: Sequence[ScoredResponses], key: jax.Array):
        sides = [side.responses for side in samples]
        if length is None:
            tokens = token_logps_of_sides(sides, token_logps, params, key)
            masks = [side.response_mask for side in sides]
        else:
            rows = shared_sides(sides, longest=length)
            logps = token_logps(params, rows, example_keys(key, rows.index))
            tokens, masks = (jnp.unstack(x, axis=1) for x in (logps, rows.response_mask))
        return [sequence_logps(*side) for side in zip(tokens, masks, strict=True)]

    return logps_of
