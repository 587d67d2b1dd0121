"""Sampled pairs of responses to every prompt, with scores and reference log-probabilities.

Tokens go in and come out as tokens, nothing is decoded and encoded again.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxalign.advantages import missing_eos_penalty
from jaxalign.batches.preferences import OnlineBatch, ScoredResponses
from jaxalign.batches.shared_prompts import one_a_row, shared_sides
from jaxalign.batches.tokens import TokenBatch
from jaxalign.logprobs import sequence_logps
from jaxalign.models.functions import ScoreColumns, text_logps, text_scores
from jaxalign.models.transformer import LanguageModel
from jaxalign.numerics.masking import is_end, with_ties_restored
from jaxalign.numerics.types import Params
from jaxalign.sampling import Samples, sample, sample_mixture


def sample_pairs(
    policy: LanguageModel,
    reward: LanguageModel | ScoreColumns,
    *,
    opponent: float,
    temperature: float,
    max_new_tokens: int,
    eos_id: int | tuple[int, ...],
) -> Callable[..., tuple[OnlineBatch, dict[str, jax.Array]]]:
    """Sampling and scoring of pairs: `(shared, prompts: TokenBatch) -> (OnlineBatch, metrics)`.

    Rows do not depend on each other. The first response of a row is drawn by the policy, the second
    by the geometric mixture of policy and reference, with noise of its own. The scores are those of
    the reward model; `scored_pairs` makes of them the scores to learn from.

    Args:
      policy: transformer with a logits head; the reference has the same architecture.
      reward: transformer with a score head and the same vocabulary, or `ScoreColumns`.
      opponent: weight of the reference in the mixture that draws the second response, in [0, 1].
      temperature: of the policy and of the reference, in sampling and in every log-probability.
      max_new_tokens, eos_id: see `sample`.

    Returns:
      A function for `Layout.rows`; `shared` is `(policy_params, reference_params, reward_params,
      key)`. The metrics are `[B]` each, of the first responses.
    """
    decoding = {"max_new_tokens": max_new_tokens, "eos_id": eos_id, "temperature": temperature}
    reference_logps = _logps_of_sides(policy, temperature=temperature, longest=max_new_tokens)
    scores_of = text_scores(reward)

    def pairs(
        shared: tuple[Any, ...], prompts: TokenBatch
    ) -> tuple[OnlineBatch, dict[str, jax.Array]]:
        params, reference_params, reward_params, key = shared
        keys = [jax.random.fold_in(key, side) for side in (0, 1)]
        both = (params, reference_params)
        first_samples = sample(policy, params, prompts, keys[0], **decoding)
        second_samples = sample_mixture(
            (policy, policy), both, prompts, keys[1], mixture=opponent, **decoding
        )
        sides = (first_samples.batch, second_samples.batch)
        first, second = (
            ScoredResponses(responses=side, scores=scores_of(reward_params, side), reference=logps)
            for side, logps in zip(sides, reference_logps(reference_params, sides), strict=True)
        )
        weights = jnp.any(prompts.mask, axis=1).astype(jnp.float32)
        batch = OnlineBatch(first=first, second=second, weights=weights)
        return batch, pair_metrics(first_samples, first.reference, eos_id=eos_id)

    return pairs


def _logps_of_sides(
    policy: LanguageModel, *, temperature: float, longest: int
) -> Callable[[Params, Sequence[TokenBatch]], tuple[jax.Array, ...]]:
    """`(params, sides) -> [B]` nats a side: responses to one prompt, which is read once.

    Args:
      policy, temperature: of the distribution.
      longest: tokens of the longest response.
    """
    read = text_logps(policy, temperature=temperature)

    def logps(params: Params, sides: Sequence[TokenBatch]) -> tuple[jax.Array, ...]:
        rows = shared_sides(sides, longest=longest)
        sums = sequence_logps(one_a_row(read(params, rows)), one_a_row(rows.response_mask))
        return jnp.unstack(sums.reshape(-1, len(sides)), axis=1)

    return logps


def pair_metrics(
    samples: Samples, reference_logps: jax.Array, *, eos_id: int | tuple[int, ...]
) -> dict[str, jax.Array]:
    """Metrics of sampled responses, `[B]` each: KL to the reference, length, whether they ended,
    and the entropy of a token, estimated by those that were drawn.

    Args:
      samples: the responses.
      reference_logps: `[B]` nats, of the same responses under the reference.
      eos_id: the token that ends a response, or all that do.
    """
    rows = samples.batch
    lengths = rows.response_mask.sum(axis=1)
    return {
        "policy/entropy": -samples.logps.sum(axis=1) / jnp.maximum(lengths, 1),
        "kl/reference": samples.logps.sum(axis=1) - reference_logps,
        "response/length": lengths,
        "response/ended": jnp.any(rows.response_mask & is_end(rows.tokens, eos_id), axis=1),
    }


def scored_pairs(
    batch: OnlineBatch, *, missing_eos: float, eos_id: int | tuple[int, ...]
) -> OnlineBatch:
    """Sampled pairs with the scores to learn from, in which a missing EOS is penalised.

    A pair in which a score is NaN weighs nothing, and scores that differ by rounding alone become
    equal.

    Args:
      batch: from `sample_pairs`, scores `[B]`, NaN where a response has none.
      missing_eos: subtracted from the score of a response without EOS, reward units.
      eos_id: the token that ends a response, or all that do.
    """
    sides = batch.first, batch.second
    have_scores = ~jnp.isnan(batch.first.scores + batch.second.scores)
    before = [jnp.where(have_scores, side.scores, 0) for side in sides]
    after = [
        missing_eos_penalty(
            scores,
            side.responses.tokens,
            side.responses.response_mask,
            eos_id=eos_id,
            penalty=missing_eos,
        )
        for scores, side in zip(before, sides, strict=True)
    ]
    sampled, penalised = jnp.stack(before, axis=1), jnp.stack(after, axis=1)
    scale = jnp.abs(sampled) + jnp.abs(sampled - penalised)
    mask = jnp.ones_like(penalised, bool)
    scores = jnp.unstack(with_ties_restored(penalised, scale, mask, axis=1), axis=1)
    first, second = (
        dataclasses.replace(side, scores=x) for side, x in zip(sides, scores, strict=True)
    )
    return OnlineBatch(first=first, second=second, weights=batch.weights * have_scores)
