"""Reward models."""

import jax
import jax.numpy as jnp
import optax

from jaxalign.batches import ComparisonBatch
from jaxalign.losses.bradley_terry import bradley_terry_loss, centering_penalty
from jaxalign.objectives.keys import example_keys


def reward(scores, *, centering: float = 0.0, l2: float = 0.0, penalised=lambda params: params):
    """Bradley-Terry over all compared pairs of a group of texts; weight: comparisons.

    Args:
      scores: `(params, TokenBatch, keys) -> [B]` scalar scores.
      centering: coefficient of the squared score sum, which holds the free constant of the scores
        near 0.
      l2: coefficient of the sum of squares of the penalised parameters (ridge), per comparison.
      penalised: `params -> pytree` of those parameters; all by default.
    """

    def loss_fn(params, batch: ComparisonBatch, key):
        groups, size = batch.texts.index.shape
        rows = jax.tree.map(lambda leaf: leaf.reshape(groups * size, *leaf.shape[2:]), batch.texts)
        score = scores(params, rows, example_keys(key, rows.index)).reshape(groups, size)
        preferences = batch.preferences
        first = jnp.broadcast_to(score[:, :, None], preferences.shape)
        second = jnp.broadcast_to(score[:, None, :], preferences.shape)
        pair_loss = bradley_terry_loss(first - second, margins=batch.margins)
        pair_loss += centering * centering_penalty(first, second)
        right = (first > second) + 0.5 * (first == second)
        metrics = {
            "rewards/accuracy": (preferences * right).sum(),
            "rewards/margin": (preferences * (first - second)).sum(),
            "rewards/mean": (preferences * (first + second) / 2).sum(),
        }
        loss, weight = (preferences * pair_loss).sum(), preferences.sum()
        if l2:
            loss += weight * l2 * optax.tree.norm(penalised(params), squared=True)
        return loss, (weight, metrics)

    return loss_fn
