"""Sampled groups of responses to the same prompt, their advantages, and the batch to learn from.

Row `i * G + j` is response j to prompt i. Advantages are computed on all rows of an iteration,
before it is cut into minibatches: a group is never split.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxalign.advantages import (
    overlong_penalties,
    shaped_rewards,
)
from jaxalign.batches.experience import ResponseBatch
from jaxalign.batches.shared_prompts import behind_prompts, shared_rows
from jaxalign.batches.tokens import TokenBatch, pytree
from jaxalign.diagnostics import ratio_diagnostics
from jaxalign.losses.aggregation import without_truncated
from jaxalign.losses.group_methods import GroupMethod
from jaxalign.losses.importance import top_entropy_mask
from jaxalign.models.functions import ScoreColumns, text_decisions, text_logps
from jaxalign.models.transformer import LanguageModel
from jaxalign.numerics.masking import equal_entries, is_end, masked_sum, with_ties_restored
from jaxalign.numerics.precision import settled_sum
from jaxalign.rollouts.text import (
    ScoredSamples,
    penalised_scores,
    sample_metrics,
    tokens_with_score,
)
from jaxalign.sampling import sample

REPORTED_CAP = 2.0  # of the diagnostics where the weights themselves have none


@pytree
class GroupSamples:
    """Sampled and scored responses with the trainer's log-probabilities of them.

    scored: the responses with the log-probabilities that the sampler reported.
    behaviour_logps: `[B, T]` nats of the same tokens under the same policy, as the trainer computes
      them: without a cache, so they differ by rounding (or by more, with another sampler).
    entropies: `[B, T]` nats, of the distributions that the tokens were drawn from.
    """

    scored: ScoredSamples
    behaviour_logps: jax.Array
    entropies: jax.Array


def sample_groups(
    policy: LanguageModel,
    reference: LanguageModel,
    reward: LanguageModel | ScoreColumns,
    *,
    temperature: float,
    max_new_tokens: int,
    eos_id: int | tuple[int, ...],
    shared: int = 1,
) -> Callable[..., GroupSamples]:
    """Sampling and scoring of groups: `(models, prompts: TokenBatch) -> GroupSamples`.

    Args:
      policy, reference: transformers with a logits head and the same vocabulary.
      reward: transformer with a score head, or `ScoreColumns`.
      temperature: of the policy and of the reference, in sampling and in every log-probability.
      max_new_tokens, eos_id: see `sample`.
      shared: number of rows side by side that have the same prompt, which the models read once.

    Returns:
      A function for `Layout.rows`; `models` is `(policy_params, reference_params, reward_params,
      key)`.
    """
    read = text_decisions(policy, temperature=temperature)
    reference_logps = text_logps(reference, temperature=temperature)

    def collected(models: tuple[Any, ...], prompts: TokenBatch) -> GroupSamples:
        params, reference_params, reward_params, key = models
        drawn = sample(
            policy,
            params,
            prompts,
            key,
            max_new_tokens=max_new_tokens,
            eos_id=eos_id,
            temperature=temperature,
            repeats=shared,
        )
        rows = drawn.batch
        inputs = shared_rows(rows, count=shared, longest=max_new_tokens)
        of_responses = *read(params, inputs), reference_logps(reference_params, inputs)
        columns = prompts.tokens.shape[1]
        logps, entropies, frozen = (behind_prompts(x, columns) for x in of_responses)
        scores = reward.apply({"params": reward_params}, rows.tokens, rows.mask).scores
        scored = ScoredSamples(samples=drawn, scores=scores, values=None, reference_logps=frozen)
        return GroupSamples(scored=scored, behaviour_logps=logps, entropies=entropies)

    return collected


def learned_scores(
    samples: GroupSamples, method: GroupMethod, *, eos_id: int | tuple[int, ...], longest: int
) -> jax.Array:
    """Scores to learn from: sampled scores less the penalties for missing EOS and for length.

    Args:
      samples: of one iteration.
      method: has the penalties.
      eos_id: the token that ends a response, or all that do.
      longest: response that sampling allows, in tokens.

    Returns:
      `[B]`, reward units; NaN where a response has no score.
    """
    rows = samples.scored.samples.batch
    penalty = method.missing_eos_penalty
    scores = penalised_scores(samples.scored, penalty=penalty, eos_id=eos_id)
    cache = round(method.overlong_share * longest)
    if cache:
        lengths = rows.response_mask.sum(axis=1)
        penalties = overlong_penalties(lengths, longest=longest, cache=cache)
        scores = settled_sum(scores, penalties)
    return scores


def token_kl(samples: GroupSamples, method: GroupMethod) -> jax.Array:
    """KL to the reference that the reward is charged for: each token's estimate, `[B, T]` nats."""
    estimate = method.kl_estimator.reward
    if not method.reward_kl_coef or estimate is None:
        return jnp.zeros_like(samples.behaviour_logps)
    return estimate(samples.behaviour_logps, samples.scored.reference_logps)


def group_advantages(
    samples: GroupSamples, scores: jax.Array, method: GroupMethod, *, group_size: int
) -> tuple[jax.Array, jax.Array]:
    """Advantages of all responses of an iteration, and which groups have equal scores (but for
    rounding, the rule of the advantages too).

    Equal means equal but for rounding. A KL in the reward is subtracted from each token for
    `reinforce_plus_plus`, else from the response. A response whose score is NaN is left out of
    its group.

    Args:
      samples: of one iteration, groups side by side.
      scores: `[B]` from `learned_scores`.
      method: names advantages and KL.
      group_size: G.

    Returns:
      `[B]` or `[B, T]` advantages, and `[B]` bool, true where the group has equal scores.
    """
    has_score = ~jnp.isnan(scores)
    before = jnp.where(has_score, samples.scored.scores, 0)
    scores = jnp.where(has_score, scores, 0)
    mask = samples.scored.samples.batch.response_mask & has_score[:, None]
    kl_coef, kl = method.reward_kl_coef, token_kl(samples, method)
    penalty = kl_coef * masked_sum(kl, mask, axis=1)
    scale = jnp.abs(before) + jnp.abs(before - scores) + jnp.abs(penalty)
    groups, scales, there = (
        x.reshape(-1, group_size) for x in (settled_sum(scores, -penalty), scale, has_score)
    )
    groups = with_ties_restored(groups, scales, there, axis=1)
    equal = equal_entries(groups, there, axis=1)
    equal = jnp.broadcast_to(equal, groups.shape).reshape(-1)
    of_tokens, of_responses = method.advantages.of_tokens, method.advantages.of_responses
    if of_tokens is not None:
        rewards = shaped_rewards(scores, kl, mask, kl_coef=kl_coef)
        return of_tokens(rewards, mask, method.gamma), equal
    assert of_responses is not None
    real, lengths = (x.reshape(groups.shape) for x in (mask.any(axis=1), mask.sum(axis=1)))
    return of_responses(groups, lengths, real).reshape(-1), equal


def sampler_logps(
    samples: GroupSamples, method: GroupMethod
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Log-probabilities of trainer and sampler at the level of the importance weights, and a mask.

    Returns:
      Three `[B, T]` arrays for weights of tokens, `[B]` for weights of sequences; nats, nats, bool.
    """
    mask = samples.scored.samples.batch.response_mask
    ours, theirs = samples.behaviour_logps, samples.scored.samples.logps
    ours, at_level = method.importance_level(ours, mask)
    return ours, method.importance_level(theirs, mask)[0], at_level


def token_weights(samples: GroupSamples, mask: jax.Array, method: GroupMethod) -> jax.Array:
    """`[B, T]` factors of the policy loss: importance weights, and 0 where entropy is too low.

    The entropies are those of the policy that sampled, and the threshold is that of all rows of the
    iteration, so that no update depends on how it is cut into minibatches.
    """
    weights = jnp.ones(mask.shape)
    if method.importance_cap is not None:
        ours, theirs, _ = sampler_logps(samples, method)
        importance = method.importance_mode(ours, theirs, cap=method.importance_cap)
        importance = importance if importance.ndim == 2 else importance[:, None]
        weights = weights * jnp.broadcast_to(importance, mask.shape)
    if method.top_entropy is not None:
        weights = weights * top_entropy_mask(samples.entropies, mask, share=method.top_entropy)
    return weights


def response_batch(
    samples: GroupSamples,
    method: GroupMethod,
    *,
    group_size: int,
    eos_id: int | tuple[int, ...],
    longest: int,
) -> tuple[ResponseBatch, dict[str, jax.Array]]:
    """Batch for the objective of a policy gradient, and metrics of the iteration.

    Args:
      samples: of one iteration, groups side by side.
      method: names advantages, KL and what is left out.
      group_size: G, responses to a prompt.
      eos_id: the token that ends a response, or all that do.
      longest: response that sampling allows, in tokens.
    """
    rows, scored = samples.scored.samples.batch, samples.scored
    scores = learned_scores(samples, method, eos_id=eos_id, longest=longest)
    advantages, equal = group_advantages(samples, scores, method, group_size=group_size)
    mask = tokens_with_score(rows, scores)
    if method.mask_truncated:
        mask = without_truncated(mask, jnp.any(mask & is_end(rows.tokens, eos_id), axis=1))
    if method.drop_equal_groups:
        mask = mask & ~equal[:, None]
    batch = ResponseBatch(
        inputs=rows,
        mask=mask,
        behaviour_logps=samples.behaviour_logps,
        reference_logps=scored.reference_logps,
        advantages=advantages,
        weights=token_weights(samples, mask, method),
        index=rows.index,
    )
    cap = method.importance_cap or REPORTED_CAP
    within = jnp.nanstd(scored.scores.reshape(-1, group_size), axis=1)
    return batch, {
        **sample_metrics(scored, samples.behaviour_logps, eos_id=eos_id),
        "scores/std_within_groups": jnp.nanmean(within),
        "scores/equal_groups": equal.mean(),
        "response/trained": mask.any(axis=1).mean(),
        **ratio_diagnostics(*sampler_logps(samples, method), cap=cap),
    }
