"""Objective of supervised fine-tuning."""

import jax

from jaxalign.batches.functions import LossFn, LossSums, TokenLogps, TokenPairs
from jaxalign.batches.tokens import PackedBatch, TokenBatch
from jaxalign.losses.cross_entropy import cross_entropy_loss
from jaxalign.numerics.masking import masked_sum
from jaxalign.numerics.types import Params
from jaxalign.objectives.keys import example_keys

ROUNDING = 1e-5  # nats between two log-probabilities that are one and the same


def sft(token_logps: TokenLogps | TokenPairs) -> LossFn:
    """Objective of supervised fine-tuning: next-token cross-entropy over response tokens; weight:
    response tokens.

    Args:
      token_logps: `(params, TokenBatch, keys) -> [B, T]` log-probabilities in nats; of a
        `PackedBatch` too, if it is given one. With those of the likeliest tokens, a pair, there is
        a metric `tokens/accuracy`: the share of tokens that are the model's first choice.
    """

    def loss_fn(params: Params, batch: TokenBatch | PackedBatch, key: jax.Array) -> LossSums:
        read = token_logps(params, batch, example_keys(key, batch.index))
        metrics = {}
        if isinstance(read, tuple):
            read, likeliest = read
            hits = read >= likeliest - ROUNDING
            metrics["tokens/accuracy"] = masked_sum(hits, batch.response_mask)
        loss = masked_sum(cross_entropy_loss(read), batch.response_mask)
        return loss, (batch.response_mask.sum().astype(loss.dtype), metrics)

    return loss_fn
