"""Objectives of policy gradients: PPO, and critic-free methods on scored responses."""

import jax
import jax.numpy as jnp

from jaxalign.batches.experience import Experience, ResponseBatch
from jaxalign.batches.functions import EvaluateActions, LossFn, LossSums, TokenPairs
from jaxalign.batches.shared_prompts import one_a_row, response_rows
from jaxalign.batches.tokens import SharedPrompts
from jaxalign.kl import k3
from jaxalign.losses.group_methods import GroupMethod
from jaxalign.losses.grpo import each_token, with_kl_term
from jaxalign.losses.ppo import (
    ppo_loss,
    ppo_policy_clipped,
    ppo_policy_loss,
    ppo_value_clipped,
    ppo_value_loss,
    probability_ratios,
)
from jaxalign.numerics.masking import masked_sum
from jaxalign.numerics.types import Params
from jaxalign.objectives.keys import example_keys


def ppo(
    evaluate: EvaluateActions,
    *,
    clip_range: float | tuple[float, float],
    value_coef: float,
    entropy_coef: float = 0.0,
    dual_clip: float | None = None,
    value_clip_range: float | None = None,
) -> LossFn:
    """Objective of PPO in any domain: clipped policy loss + value loss - entropy bonus; weight:
    decisions.

    Args:
      evaluate: `(params, Experience, keys) -> (logps, entropy, values)`, each `[B, T]`.
      clip_range: how far the ratio may leave 1: one number, or (below, above).
      value_coef, entropy_coef: weights of the two other terms.
      dual_clip: bound on the loss of very unlikely actions with negative advantage, or None.
      value_clip_range: how far a value may move from its old prediction, or None.
    """

    def loss_fn(params: Params, batch: Experience, key: jax.Array) -> LossSums:
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
        clipped = ppo_policy_clipped(*decision, **clip)
        per_decision = {
            "ppo/policy_loss": policy_loss,
            "ppo/value_loss": value_loss,
            "ppo/entropy": entropy,
            "ppo/approx_kl": k3(batch.behaviour_logps, logps),
            "ppo/clip_fraction": clipped,
            "ppo/clip_fraction_low": clipped * (logps < batch.behaviour_logps),
            "ppo/clip_fraction_high": clipped * (logps > batch.behaviour_logps),
            "ppo/value_clip_fraction": ppo_value_clipped(*target, value_clip_range=value_clip),
        }
        sums = {name: masked_sum(value, batch.mask) for name, value in per_decision.items()}
        return masked_sum(loss, batch.mask), (batch.mask.sum().astype(logps.dtype), sums)

    return loss_fn


def group_policy_gradient(evaluate: TokenPairs, method: GroupMethod, *, length: int) -> LossFn:
    """Objective of a declared critic-free policy gradient; weight: tokens or responses, by the
    method's aggregation.

    The metrics `policy/entropy`, `policy/approx_kl`, `policy/ratio`, `policy/kl` (the KL term
    before its coefficient) and `policy/clip_fraction` are means over tokens; `policy/loss` is the
    aggregated surrogate.

    Args:
      evaluate: `(params, TokenBatch, keys) -> (logps, entropy)`, each `[B, T]`; `[B, K, R]` of
        `SharedPrompts`, if these are the batch's inputs.
      method: a declared one, `GRPO` or `with_parts(GRPO, kl_coef=0.0)`; its advantages are those of
        the batch already.
      length: the longest response that sampling allows, in tokens.
    """

    def loss_fn(params: Params, batch: ResponseBatch, key: jax.Array) -> LossSums:
        logps, entropy = evaluate(params, batch.inputs, example_keys(key, batch.index))
        if isinstance(batch.inputs, SharedPrompts):
            logps, entropy, batch = one_a_row(logps), one_a_row(entropy), response_rows(batch)
        if not method.entropy_coef:
            entropy = jax.lax.stop_gradient(entropy)  # a metric only: spare its backward pass
        behaviour = batch.behaviour_logps
        decision = (logps, behaviour, batch.mask, advantages_for(method, batch))
        policy_losses = method.surrogate.losses(*decision, **method.hyperparameters)
        if method.surrogate.whole:  # at each token, so that the mean over tokens is the loss
            policy_losses = jnp.broadcast_to(policy_losses[:, None], logps.shape)
        policy_losses = policy_losses * batch.weights
        losses = policy_losses - method.entropy_coef * entropy
        per_token = {
            "policy/entropy": entropy,
            "policy/approx_kl": k3(behaviour, logps),
            "policy/ratio": probability_ratios(logps, behaviour),
        }
        if method.loss_kl_coef and method.kl_estimator.loss is not None:
            kl = method.kl_estimator.loss(logps, behaviour, batch.reference_logps)
            losses = with_kl_term(losses, kl, kl_coef=method.kl_coef)
            per_token["policy/kl"] = kl
        if method.surrogate.clipped is not None:
            clipped = method.surrogate.clipped(*decision, **method.hyperparameters)
            per_token["policy/clip_fraction"] = clipped
            per_token["policy/clip_fraction_low"] = clipped * (logps < behaviour)
            per_token["policy/clip_fraction_high"] = clipped * (logps > behaviour)
        tokens = batch.mask.sum().astype(logps.dtype)
        means = {name: (masked_sum(x, batch.mask), tokens) for name, x in per_token.items()}
        weights, divisor = method.aggregation.weights(batch.mask, length)
        metrics = means | {"policy/loss": masked_sum(policy_losses, weights)}
        return masked_sum(losses, weights), (divisor, metrics)

    return loss_fn


def advantages_for(method: GroupMethod, batch: ResponseBatch) -> jax.Array:
    """Advantages of a batch in the shape of the surrogate's: `[B]` of responses or `[B, T]`."""
    if method.surrogate.one_advantage or batch.advantages.ndim == 2:
        return batch.advantages
    return each_token(batch.advantages, batch.behaviour_logps)
