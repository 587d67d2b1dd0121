"""Two fresh responses to every prompt, with what their judges and the reference say of them.

Tokens go in and come out as tokens, nothing is decoded and encoded again.
"""

import dataclasses

import jax
import jax.numpy as jnp

from jaxalign.advantages import missing_eos_penalty
from jaxalign.batches.preferences import Judged, OnlineBatch
from jaxalign.batches.shared_prompts import one_a_row, shared_sides
from jaxalign.batches.tokens import TokenBatch
from jaxalign.logprobs import sequence_logps
from jaxalign.models.functions import text_logps, text_scores
from jaxalign.numerics.masking import is_end, united
from jaxalign.sampling import sample, sample_mixture


def sample_pairs(
    policy,
    reward,
    *,
    opponent: float,
    temperature: float,
    max_new_tokens: int,
    eos_id: int | tuple[int, ...],
):
    """`(shared, prompts: TokenBatch) -> (OnlineBatch, measured)`, row by row independent.

    The first response of a row is drawn by the policy, the second by the geometric mixture of
    policy and reference, with noise of its own. Their scores are the reward model's as they are;
    `judged_pairs` takes them from there.

    Args:
      policy: transformer with a logits head; the reference has the same architecture.
      reward: transformer with a score head and the same vocabulary, or `ScoreColumns`.
      opponent: weight of the reference in what draws the second response, in [0, 1].
      temperature: of the policy and of the reference, in sampling and in every log-probability.
      max_new_tokens, eos_id: see `sample`.

    Returns:
      A function for `Layout.rows`; `shared` is `(policy_params, reference_params, reward_params,
      key)`. `measured` has `[B]` of each metric, of the first responses.
    """
    decoding = {"max_new_tokens": max_new_tokens, "eos_id": eos_id, "temperature": temperature}
    read = text_logps(policy, temperature=temperature)
    scores_of = text_scores(reward)

    def reference_logps(params, sides) -> tuple[jax.Array, ...]:
        rows = shared_sides(sides, longest=max_new_tokens)
        sums = sequence_logps(one_a_row(read(params, rows)), one_a_row(rows.response_mask))
        return jnp.unstack(sums.reshape(-1, len(sides)), axis=1)

    def pairs(shared, prompts: TokenBatch):
        params, reference_params, reward_params, key = shared
        keys = [jax.random.fold_in(key, side) for side in (0, 1)]
        both = (params, reference_params)
        drawn = sample(policy, params, prompts, keys[0], **decoding)
        against = sample_mixture(
            (policy, policy), both, prompts, keys[1], mixture=opponent, **decoding
        )
        sides = (drawn.batch, against.batch)
        first, second = (
            Judged(responses=side, scores=scores_of(reward_params, side), reference=logps)
            for side, logps in zip(sides, reference_logps(reference_params, sides), strict=True)
        )
        rows = drawn.batch
        weights = jnp.any(prompts.mask, axis=1).astype(jnp.float32)
        measured = {
            "kl/reference": drawn.logps.sum(axis=1) - first.reference,
            "response/length": rows.response_mask.sum(axis=1),
            "response/ended": jnp.any(rows.response_mask & is_end(rows.tokens, eos_id), axis=1),
        }
        return OnlineBatch(first=first, second=second, weights=weights), measured

    return pairs


def judged_pairs(
    batch: OnlineBatch, *, missing_eos: float, eos_id: int | tuple[int, ...]
) -> OnlineBatch:
    """The pairs with the scores to learn from; one in which a score is NaN weighs nothing, and
    scores that differ by rounding alone are the same.

    Args:
      batch: from `sample_pairs`, scores `[B]`, NaN where nobody could judge.
      missing_eos: taken from the score of a response that did not end by itself.
      eos_id: the token that ends a response, or all that do.
    """
    sides = batch.first, batch.second
    judged = ~jnp.isnan(batch.first.scores + batch.second.scores)
    before = [jnp.where(judged, side.scores, 0) for side in sides]
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
    given, left = jnp.stack(before, axis=1), jnp.stack(after, axis=1)
    scale = jnp.abs(given) + jnp.abs(given - left)
    scores = jnp.unstack(united(left, scale, jnp.ones_like(left, bool), axis=1), axis=1)
    first, second = (
        dataclasses.replace(side, scores=x) for side, x in zip(sides, scores, strict=True)
    )
    return OnlineBatch(first=first, second=second, weights=batch.weights * judged)
