"""Losses on pairs of responses."""

import jax
import jax.numpy as jnp

from jaxalign.batches import PairLogps, PreferenceBatch
from jaxalign.errors import UserError
from jaxalign.logprobs import sequence_logps
from jaxalign.losses.dpo import dpo_loss, implicit_rewards, robust_dpo_loss
from jaxalign.masking import masked_sum
from jaxalign.objectives.keys import example_keys


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
