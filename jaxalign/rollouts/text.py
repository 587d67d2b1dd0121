"""Text generation as an environment: sampled and scored responses, and experience for PPO.

The response's tokens are the actions; the score is the reward of the last one, and the KL to the
reference is subtracted from the reward of every token. Tokens go in and come out as tokens, nothing
is decoded and encoded again.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxalign.advantages import gae, missing_eos_penalty, shaped_rewards
from jaxalign.batches.experience import Experience
from jaxalign.batches.tokens import TokenBatch, pytree
from jaxalign.kl import k1
from jaxalign.models.functions import ScoreColumns, forward, logps_of
from jaxalign.models.transformer import LanguageModel
from jaxalign.numerics.masking import is_end, masked_sum
from jaxalign.sampling import Samples, sample


@pytree
class ScoredSamples:
    """Sampled responses with scores, values and reference log-probabilities.

    samples: the responses, with their log-probabilities under the policy that drew them.
    scores: `[B]` of prompt and response together, NaN where there is none: that response weighs
      nothing. `[B, F]` before the scores of several reward functions are added.
    values: `[B, T]` the policy's value predictions when it chose each token; None without a value
      head.
    reference_logps: `[B, T]` log-probabilities of the same tokens under the frozen reference.
    """

    samples: Samples
    scores: jax.Array
    values: jax.Array | None
    reference_logps: jax.Array


def sample_and_score(
    policy: LanguageModel,
    reference: LanguageModel,
    reward: LanguageModel | ScoreColumns,
    *,
    temperature: float,
    max_new_tokens: int,
    eos_id: int | tuple[int, ...],
) -> Callable[..., ScoredSamples]:
    """Sampling and scoring of responses: `(shared, prompts: TokenBatch) -> ScoredSamples`.

    Rows do not depend on each other.

    Args:
      policy: transformer with a logits head, and for PPO a value head.
      reference: transformer with a logits head and the same vocabulary.
      reward: transformer with a score head, or `ScoreColumns`.
      temperature: of the policy and of the reference, in sampling and in every log-probability.
      max_new_tokens, eos_id: see `sample`.

    Returns:
      A function for `Layout.rows`; `shared` is `(policy_params, reference_params, reward_params,
      key)`.
    """

    def scored(shared: tuple[Any, ...], prompts: TokenBatch) -> ScoredSamples:
        params, reference_params, reward_params, key = shared
        drawn = sample(
            policy,
            params,
            prompts,
            key,
            max_new_tokens=max_new_tokens,
            eos_id=eos_id,
            temperature=temperature,
        )
        rows = drawn.batch
        outputs = forward(policy, params, rows, last=max_new_tokens)
        frozen = forward(reference, reference_params, rows, last=max_new_tokens)
        logps = logps_of(frozen, rows.tokens, temperature=temperature, last=max_new_tokens)
        return ScoredSamples(
            samples=drawn,
            scores=reward.apply({"params": reward_params}, rows.tokens, rows.mask).scores,
            values=outputs.values,
            reference_logps=logps,
        )

    return scored


def penalised_scores(
    scored: ScoredSamples, *, penalty: float, eos_id: int | tuple[int, ...]
) -> jax.Array:
    """Scores of the samples less the penalty for a missing EOS.

    Args:
      scored: the samples.
      penalty: what a response without EOS loses, in score units.
      eos_id: the token that ends a response, or all that do.

    Returns:
      `[B]`, NaN where a response has no score.
    """
    rows = scored.samples.batch
    return missing_eos_penalty(
        scored.scores, rows.tokens, rows.response_mask, eos_id=eos_id, penalty=penalty
    )


def reference_kl(scored: ScoredSamples, logps: jax.Array) -> jax.Array:
    """KL to the reference of each sampled token, estimated by the log-ratio (k1).

    Args:
      scored: the samples.
      logps: `[B, T]` nats of their tokens under the policy that drew them.

    Returns:
      `[B, T]` nats.
    """
    return k1(logps, scored.reference_logps)


def tokens_with_score(rows: TokenBatch, scores: jax.Array) -> jax.Array:
    """Mask `[B, T]` of response tokens, without responses whose score `[B]` is NaN."""
    return rows.response_mask & ~jnp.isnan(scores)[:, None]


def token_rewards(
    scored: ScoredSamples, scores: jax.Array, *, kl_coef: float | jax.Array
) -> jax.Array:
    """Rewards of sampled tokens: the score at the last one minus the KL penalty at each.

    Args:
      scored, scores, kl_coef: as in `text_experience`.

    Returns:
      `[B, T]`, score units.
    """
    kl = reference_kl(scored, scored.samples.logps)
    mask = tokens_with_score(scored.samples.batch, scores)
    return shaped_rewards(scores, kl, mask, kl_coef=kl_coef)


def text_experience(
    scored: ScoredSamples,
    scores: jax.Array,
    *,
    kl_coef: float | jax.Array,
    gamma: float,
    gae_lambda: float,
) -> Experience:
    """Experience from sampled responses: KL-shaped rewards, advantages and value targets.

    Args:
      scored: from `sample_and_score`.
      scores: `[B]` the scores to learn from (normalised, with penalties); a response whose score
        is NaN is masked out.
      kl_coef: KL coefficient, score units per nat.
      gamma, gae_lambda: discount and trace decay, in [0, 1].

    Source: Ziegler et al. 2019, https://arxiv.org/abs/1909.08593, Eq. 2 (per-token KL in the
    reward).
    """
    rows = scored.samples.batch
    assert scored.values is not None, "PPO needs a policy with a value head"
    mask = tokens_with_score(rows, scores)
    rewards = token_rewards(scored, scores, kl_coef=kl_coef)
    advantages, returns = gae(rewards, scored.values, mask, gamma=gamma, gae_lambda=gae_lambda)
    return Experience(
        inputs=rows,
        actions=rows.tokens,
        mask=mask,
        behaviour_logps=scored.samples.logps,
        values=scored.values,
        advantages=advantages,
        returns=returns,
        index=rows.index,
    )


def sample_metrics(
    scored: ScoredSamples, logps: jax.Array, *, eos_id: int | tuple[int, ...]
) -> dict[str, jax.Array]:
    """Metrics of sampled responses: means of scores, KL, length, and share that ended.

    Scores are those of the responses that have one; NaN if none has.

    Args:
      scored: the responses.
      logps: `[B, T]` nats of their tokens under the policy that drew them.
      eos_id: the token that ends a response, or all that do.
    """
    rows = scored.samples.batch
    mask = rows.response_mask
    kl = masked_sum(reference_kl(scored, logps), mask, axis=1)
    return {
        "scores/mean": jnp.nanmean(scored.scores),
        "scores/std": jnp.nanstd(scored.scores),
        "kl/reference": kl.mean(),
        "response/length": mask.sum(axis=1).mean(),
        "response/ended": jnp.any(mask & is_end(rows.tokens, eos_id), axis=1).mean(),
    }
