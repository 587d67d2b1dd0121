"""Objectives of reward models: from comparisons, from rankings, from labelled steps."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from jaxalign.batches.functions import LossFn, LossSums, TextScores
from jaxalign.batches.preferences import ComparisonBatch, RankingBatch, StepBatch
from jaxalign.batches.tokens import TokenBatch
from jaxalign.diagnostics import concordance
from jaxalign.losses.bradley_terry import bradley_terry_loss, centering_penalty
from jaxalign.losses.plackett_luce import plackett_luce_loss
from jaxalign.losses.process_reward import process_reward_loss
from jaxalign.numerics.masking import masked_sum
from jaxalign.numerics.types import Params
from jaxalign.objectives.keys import example_keys


def reward(
    scores: TextScores,
    *,
    centering: float = 0.0,
    l2: float = 0.0,
    penalised: Callable[[Params], Params] = lambda params: params,
) -> LossFn:
    """Objective of Bradley-Terry on all compared pairs of each group of texts; weight: comparisons.

    Args:
      scores: `(params, TokenBatch, keys) -> [B]` scalar scores.
      centering: coefficient of the squared score sum, which holds the free constant of the scores
        near 0.
      l2: coefficient of the sum of squares of the penalised parameters (ridge), per comparison.
      penalised: `params -> pytree` of those parameters; all by default.
    """

    def loss_fn(params: Params, batch: ComparisonBatch, key: jax.Array) -> LossSums:
        first, second = _against_each_other(_group_scores(scores, params, batch.texts, key))
        preferences = batch.preferences
        pair_loss = bradley_terry_loss(first - second, margins=batch.margins)
        pair_loss += centering * centering_penalty(first, second)
        metrics = {
            "rewards/accuracy": (preferences * concordance(first, second)).sum(),
            "rewards/margin": (preferences * (first - second)).sum(),
            "rewards/mean": (preferences * (first + second) / 2).sum(),
        }
        loss, weight = (preferences * pair_loss).sum(), preferences.sum()
        if l2:
            loss += weight * l2 * optax.tree.norm(penalised(params), squared=True)
        return loss, (weight, metrics)

    return loss_fn


def ranking(
    scores: TextScores,
    *,
    centering: float = 0.0,
    l2: float = 0.0,
    penalised: Callable[[Params], Params] = lambda params: params,
) -> LossFn:
    """Objective of Plackett-Luce on ranked responses, the best first; weight: rankings.

    Metrics are means over the pairs of responses that a ranking implies. With two responses each
    it is `reward` with one comparison a group.

    Args:
      scores: `(params, TokenBatch, keys) -> [B]` scalar scores.
      centering: coefficient of the squared score sum, averaged over the pairs of a ranking.
      l2: coefficient of the sum of squares of the penalised parameters (ridge), per ranking.
      penalised: `params -> pytree` of those parameters; all by default.
    """

    def loss_fn(params: Params, batch: RankingBatch, key: jax.Array) -> LossSums:
        score = _group_scores(scores, params, batch.texts, key)
        losses = plackett_luce_loss(score, batch.mask)
        first, second = _against_each_other(score)
        better = jnp.triu(jnp.ones(score.shape[1:] * 2, bool), k=1)
        pairs = batch.mask[:, :, None] & batch.mask[:, None, :] & better[None]
        count = pairs.sum(axis=(1, 2))
        if centering:
            penalty = jnp.where(pairs, centering_penalty(first, second), 0).sum(axis=(1, 2))
            losses += centering * penalty / jnp.maximum(count, 1)
        weights = count > 0
        per_pair = {
            "rewards/accuracy": concordance(first, second),
            "rewards/margin": first - second,
            "rewards/mean": (first + second) / 2,
        }
        metrics = {n: (masked_sum(value, pairs), pairs.sum()) for n, value in per_pair.items()}
        loss, weight = masked_sum(losses, weights), weights.sum()
        if l2:
            loss += weight * l2 * optax.tree.norm(penalised(params), squared=True)
        return loss, (weight, metrics)

    return loss_fn


def process_reward(step_scores: TextScores) -> LossFn:
    """Objective of a process reward model: cross-entropy of the labels of steps at their last
    tokens; weight: steps.

    `steps/accuracy` is the share of steps on the side of 1/2 that their label is on;
    `steps/chance` the mean predicted chance that a step is right.

    Args:
      step_scores: `(params, TokenBatch, keys) -> [B, T]` logits after every token.
    """

    def loss_fn(params: Params, batch: StepBatch, key: jax.Array) -> LossSums:
        logits = step_scores(params, batch.texts, example_keys(key, batch.texts.index))
        steps = batch.texts.response_mask
        losses = process_reward_loss(logits, batch.labels)
        metrics = {
            "steps/accuracy": masked_sum(concordance(logits * (batch.labels - 0.5), 0.0), steps),
            "steps/chance": masked_sum(jax.nn.sigmoid(logits), steps),
        }
        return masked_sum(losses, steps), (steps.sum(), metrics)

    return loss_fn


def _group_scores(
    scores: TextScores, params: Params, texts: TokenBatch, key: jax.Array
) -> jax.Array:
    """`[G, K]` scores of groups of K texts, which are scored as `G K` rows."""
    groups, size = texts.index.shape
    rows = jax.tree.map(lambda leaf: leaf.reshape(groups * size, *leaf.shape[2:]), texts)
    return scores(params, rows, example_keys(key, rows.index)).reshape(groups, size)


def _against_each_other(score: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Scores of both texts of every pair in a group, `[G, K, K]` each: of i and of j at (i, j)."""
    shape = (*score.shape, score.shape[1])
    return jnp.broadcast_to(score[:, :, None], shape), jnp.broadcast_to(score[:, None, :], shape)
