"""Distillation: a student learns a teacher's whole distribution at every token."""

import jax.numpy as jnp

from jaxalign.batches.preferences import DistillationBatch
from jaxalign.losses.aggregation import sequence_mean
from jaxalign.losses.distillation import forward_kl_loss, generalised_jsd_loss, reverse_kl_loss
from jaxalign.objectives.keys import example_keys
from jaxalign.objectives.pair_losses import NamedLoss, hyperparameters_of

BOTH = ("student", "teacher")
DISTILLATION_LOSSES: dict[str, NamedLoss] = {
    "forward_kl": NamedLoss(forward_kl_loss, BOTH, {}),
    "reverse_kl": NamedLoss(reverse_kl_loss, BOTH, {}),
    "jsd": NamedLoss(generalised_jsd_loss, BOTH, {"mixture": 0.5}),
}


def distillation(divergences, loss: str = "forward_kl", **given: float | None):
    """A divergence between teacher and student, by its name in `DISTILLATION_LOSSES`.

      L = (1 / B) sum_i (1 / |y_i|) sum_t D(p(. | x_i, y_i<t), q(. | x_i, y_i<t))

    Weight: responses; each is the mean over its tokens, whatever its length (the mean over all
    tokens, which other trainers take, weighs long responses more). The teacher's logits are data:
    no gradient goes there, nor into the choice of the responses.

    Args:
      divergences: `(params, TokenBatch, keys, teacher_logits, divergence) -> [B, T]`, as
        `text_divergences` makes it.
      loss: its name.
      given: hyper-parameters; None, or none at all, is the loss's own default.

    Raises:
      UserError: no such loss, or it does not take what is given.

    Source: Agarwal et al. 2023, https://arxiv.org/abs/2306.13649 (GKD).
    """
    hyperparameters = hyperparameters_of(DISTILLATION_LOSSES, loss, given)
    named = DISTILLATION_LOSSES[loss]

    def divergence(student, teacher):
        return named({"student": student, "teacher": teacher}, hyperparameters)

    def loss_fn(params, batch: DistillationBatch, key):
        rows = batch.rows
        keys = example_keys(key, rows.index)
        tokens = divergences(params, rows, keys, batch.teacher_logits, divergence)
        weights, responses = sequence_mean(rows.response_mask)
        total = jnp.where(rows.response_mask, tokens * weights, 0).sum()
        return total, (responses, {})

    return loss_fn
