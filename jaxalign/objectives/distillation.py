"""Objective of distillation: a teacher's whole distribution at every token."""

import jax
import jax.numpy as jnp

from jaxalign.batches.functions import LossFn, LossSums, TokenDivergences
from jaxalign.batches.preferences import DistillationBatch
from jaxalign.losses.aggregation import sequence_mean
from jaxalign.losses.declarations import Loss
from jaxalign.numerics.types import Params
from jaxalign.objectives.keys import example_keys


def distillation(divergences: TokenDivergences, loss: Loss) -> LossFn:
    """Objective of distillation by a declared divergence between teacher and student.

      L = (1 / B) sum_i (1 / |y_i|) sum_t D(p(. | x_i, y_i<t), q(. | x_i, y_i<t))

    Weight: responses; each is the mean over its tokens, whatever its length (the mean over all
    tokens, which other trainers take, weighs long responses more). The teacher's logits are data:
    no gradient goes there, nor into the choice of the responses.

    Args:
      divergences: `(params, TokenBatch, keys, teacher_logits, divergence) -> [B, T]`, as
        `text_divergences` makes it.
      loss: a declared divergence, `FORWARD_KL_DISTILLATION` or one of its file.

    Source: Agarwal et al. 2023, https://arxiv.org/abs/2306.13649 (GKD).
    """

    def divergence(student: jax.Array, teacher: jax.Array) -> jax.Array:
        return loss({"student_logits": student, "teacher_logits": teacher})

    def loss_fn(params: Params, batch: DistillationBatch, key: jax.Array) -> LossSums:
        rows = batch.rows
        keys = example_keys(key, rows.index)
        tokens = divergences(params, rows, keys, batch.teacher_logits, divergence)
        weights, responses = sequence_mean(rows.response_mask)
        total = jnp.where(rows.response_mask, tokens * weights, 0).sum()
        return total, (responses, {})

    return loss_fn
