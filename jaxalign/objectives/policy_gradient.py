"""Losses on the policy's own decisions."""

import jax

from jaxalign.batches import Experience
from jaxalign.kl import k3
from jaxalign.losses.ppo import (
    ppo_loss,
    ppo_policy_clipped,
    ppo_policy_loss,
    ppo_value_clipped,
    ppo_value_loss,
)
from jaxalign.masking import masked_sum
from jaxalign.objectives.keys import example_keys


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
