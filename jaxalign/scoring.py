"""Models as plain functions for the objectives, and the passes that turn frozen models into data.

Reference log-probabilities, reward scores and old values never appear in a step: these passes write them into
the batch once, outside. The same model gives the same function object, so that it compiles once.
"""

import functools

from jaxalign.batches import Experience, TokenBatch
from jaxalign.logprobs import fused_token_logps, fused_token_logps_and_entropy, sequence_logps

# Tokens whose logits exist at the same time in the fused log-probabilities; bounds memory, not results.
CHUNK = 1024


@functools.cache
def text_logps(model, *, temperature: float = 1.0):
    """`(params, TokenBatch, keys=None) -> [B, T]`: log pi(token) in nats, never building `[B, T, V]`."""

    def token_logps(params, batch: TokenBatch, keys=None):
        outputs = model.apply({"params": params}, batch.tokens, batch.mask, keys=keys)
        return fused_token_logps(
            outputs.hidden,
            outputs.unembedding,
            batch.tokens,
            temperature=temperature,
            chunk_size=CHUNK,
        )

    return token_logps


@functools.cache
def text_policy(model, *, temperature: float = 1.0):
    """`(params, Experience, keys=None) -> (logps, entropy, values)`, each `[B, T]`, for `objectives.ppo`."""

    def evaluate(params, batch: Experience, keys=None):
        rows = batch.inputs
        outputs = model.apply({"params": params}, rows.tokens, rows.mask, keys=keys)
        logps, entropy = fused_token_logps_and_entropy(
            outputs.hidden,
            outputs.unembedding,
            rows.tokens,
            temperature=temperature,
            chunk_size=CHUNK,
        )
        return logps, entropy, outputs.values

    return evaluate


@functools.cache
def text_scores(model):
    """`(params, TokenBatch, keys=None) -> [B]`: one reward-model score a text."""

    def scores(params, batch: TokenBatch, keys=None):
        return model.apply({"params": params}, batch.tokens, batch.mask, keys=keys).scores

    return scores


@functools.cache
def response_logps_of(model, *, temperature: float = 1.0):
    """`(params, TokenBatch) -> [B]`: log-probability of each response in nats."""
    token_logps = text_logps(model, temperature=temperature)

    def summed(params, batch: TokenBatch):
        return sequence_logps(token_logps(params, batch), batch.response_mask)

    return summed
