"""Objective of supervised fine-tuning."""

import jax

from jaxalign.batches.functions import LossFn, LossSums, TokenLogps
from jaxalign.batches.tokens import PackedBatch, TokenBatch
from jaxalign.losses.cross_entropy import cross_entropy_loss
from jaxalign.numerics.masking import masked_sum
from jaxalign.numerics.types import Params
from jaxalign.objectives.keys import example_keys


def sft(token_logps: TokenLogps) -> LossFn:
    """Objective of supervised fine-tuning: next-token cross-entropy over response tokens; weight:
    response tokens.

    Args:
      token_logps: `(params, TokenBatch, keys) -> [B, T]` log-probabilities in nats; of a
        `PackedBatch` too, if it is given one.
    """

    def loss_fn(params: Params, batch: TokenBatch | PackedBatch, key: jax.Array) -> LossSums:
        logps = token_logps(params, batch, example_keys(key, batch.index))
        loss = masked_sum(cross_entropy_loss(logps), batch.response_mask)
        return loss, (batch.response_mask.sum().astype(loss.dtype), {})

    return loss_fn
