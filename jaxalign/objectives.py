"""Where a model meets a loss: each function here returns `loss_fn(params, batch, key)`.

A loss_fn returns `(sum, (weight, metric_sums))`: sums over this device's part of the batch, never
means. The step adds them up over devices and micro-batches and divides once, so the update does
not depend on how a batch is cut. The models come in as plain functions (see `scoring.py`); nothing
here knows an architecture or a domain.
"""

import jax
import jax.numpy as jnp
import optax

from jaxalign.batches import ComparisonBatch, Experience, PairLogps, PreferenceBatch, TokenBatch
from jaxalign.errors import UserError
from jaxalign.kl import k3
from jaxalign.logprobs import sequence_logps
from jaxalign.losses.bradley_terry import bradley_terry_loss, centering_penalty
from jaxalign.losses.cross_entropy import cross_entropy_loss
from jaxalign.losses.dpo import dpo_loss, implicit_rewards, robust_dpo_loss
from jaxalign.losses.ppo import (
    ppo_loss,
    ppo_policy_clipped,
    ppo_policy_loss,
    ppo_value_clipped,
    ppo_value_loss,
)
from jaxalign.masking import masked_sum


def example_keys(key, index):
    """One key a row, folded from its global example index: the same noise in whatever batch it
    travels.
    """
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, index)


def sft(token_logps):
    """Next-token cross-entropy over response tokens; weight: response tokens.

    Args:
      token_logps: `(params, TokenBatch, keys) -> [B, T]` log-probabilities in nats.
    """

    def loss_fn(params, batch: TokenBatch, key):
        logps = token_logps(params, batch, example_keys(key, batch.index))
        loss = masked_sum(cross_entropy_loss(logps), batch.response_mask)
        return loss, (batch.response_mask.sum().astype(loss.dtype), {})

    return loss_fn


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


def both_sides(batch: PreferenceBatch, token_logps, params, key) -> PairLogps:
    """Summed response log-probabilities of both sides in one forward pass of 2B rows."""
    rows = jax.tree.map(lambda *sides: jnp.concatenate(sides), batch.chosen, batch.rejected)
    keys = jnp.concatenate(
        [
            example_keys(jax.random.fold_in(key, side), sides.index)
            for side, sides in enumerate((batch.chosen, batch.rejected))
        ]
    )
    logps = sequence_logps(token_logps(params, rows, keys), rows.response_mask)
    chosen, rejected = jnp.split(logps, 2)
    return PairLogps(chosen=chosen, rejected=rejected)


def dpo(token_logps, *, beta: float, label_smoothing: float = 0.0, robust: bool = False):
    """DPO log-sigmoid loss, conservative when `label_smoothing` > 0, or its robust form; weight:
    pairs.

    Args:
      token_logps: `(params, TokenBatch, keys) -> [B, T]` log-probabilities of the policy.
      beta: strength of the pull towards the reference, > 0.
      label_smoothing: probability that a label is flipped, in [0, 0.5).
      robust: unbiased under that noise (Chowdhury et al. 2024) instead of conservative.
    """
    pair_loss = robust_dpo_loss if robust else dpo_loss

    def loss_fn(params, batch: PreferenceBatch, key):
        reference = batch.reference
        if reference is None:
            raise UserError("DPO needs the reference's log-probabilities in batch.reference")
        policy = both_sides(batch, token_logps, params, key)
        loss = pair_loss(policy, reference, beta=beta, label_smoothing=label_smoothing)
        rewards = implicit_rewards(policy, reference, beta=beta)
        margin = rewards.chosen - rewards.rejected
        per_pair = {
            "rewards/chosen": rewards.chosen,
            "rewards/rejected": rewards.rejected,
            "rewards/margin": margin,
            "rewards/accuracy": (margin > 0) + 0.5 * (margin == 0),
            "logps/chosen": policy.chosen,
            "logps/rejected": policy.rejected,
        }
        sums = {name: masked_sum(value, batch.weights) for name, value in per_pair.items()}
        return masked_sum(loss, batch.weights), (batch.weights.sum(), sums)

    return loss_fn


def ppo(
    evaluate,
    *,
    clip_range: float | tuple[float, float],
    value_coef: float,
    entropy_coef: float = 0.0,
    dual_clip: float | None = None,
    value_clip_range: float | None = None,
):
    """Clipped policy loss + value loss - entropy bonus, in any domain; weight: decisions.

    Args:
      evaluate: `(params, Experience, keys) -> (logps, entropy, values)`, each `[B, T]`.
      clip_range: how far the ratio may leave 1: one number, or (below, above).
      value_coef, entropy_coef: weights of the two other terms.
      dual_clip: bound on the loss of very unlikely actions with negative advantage, or None.
      value_clip_range: how far a value may move from its old prediction, or None.
    """

    def loss_fn(params, batch: Experience, key):
        logps, entropy, values = evaluate(params, batch, example_keys(key, batch.index))
        if not entropy_coef:
            entropy = jax.lax.stop_gradient(entropy)  # a metric only: spare its backward pass
        decision = (logps, batch.behaviour_logps, batch.advantages)
        clip = {"clip_range": clip_range, "dual_clip": dual_clip}
        policy_loss = ppo_policy_loss(*decision, **clip)
        target, value_clip = (values, batch.values, batch.returns), value_clip_range
        value_loss = ppo_value_loss(*target, value_clip_range=value_clip)
        loss = ppo_loss(
            policy_loss, value_loss, entropy, value_coef=value_coef, entropy_coef=entropy_coef
        )
        per_decision = {
            "ppo/policy_loss": policy_loss,
            "ppo/value_loss": value_loss,
            "ppo/entropy": entropy,
            "ppo/approx_kl": k3(batch.behaviour_logps, logps),
            "ppo/clip_fraction": ppo_policy_clipped(*decision, **clip),
            "ppo/value_clip_fraction": ppo_value_clipped(*target, value_clip_range=value_clip),
        }
        sums = {name: masked_sum(value, batch.mask) for name, value in per_decision.items()}
        return masked_sum(loss, batch.mask), (batch.mask.sum().astype(logps.dtype), sums)

    return loss_fn
