"""Models as plain functions for the objectives, and the passes that turn frozen models into data.

Reference log-probabilities, reward scores and old values never appear in a step: these passes
write them into the batch once, outside. The same model gives the same function object, so that it
compiles once.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp

from jaxalign.batches.experience import Experience
from jaxalign.batches.tokens import PackedBatch, SharedPrompts, TokenBatch
from jaxalign.errors import UserError
from jaxalign.logprobs import (
    action_logps,
    entropy,
    fused_action_logps_and_entropy,
    log_collisions,
    logits_of,
    map_time_chunks,
    sequence_logps,
    shift_right,
    tempered,
)
from jaxalign.models.architecture import TransformerConfig
from jaxalign.models.branches import Branches
from jaxalign.models.heads import pooled
from jaxalign.models.layers import filled
from jaxalign.models.ngram_reward import FEATURES, NgramConfig
from jaxalign.models.transformer import Transformer

# Up to so many logits (128 MiB) exist at once, where that is quicker; beyond, the fused forms with
# this many tokens at a time. The numbers are the same.
DENSE_LOGITS = 2**25
CHUNK = 1024


Maker = TypeVar("Maker", bound=Callable)


def once(make: Maker) -> Maker:
    """`functools.cache` that keeps the signature: the same arguments give the same function."""
    return cast(Maker, functools.cache(make))


def forward(model, params, batch: TokenBatch | PackedBatch, keys=None, last: int | None = None):
    """What the network makes of the rows; of packed ones, of each text as if it were alone.

    With `last`, only log-probabilities of so many tokens at the end are wanted.
    """
    given: dict[str, Any] = {"segments": batch.segments} if isinstance(batch, PackedBatch) else {}
    if last is not None:
        given["last"] = last + 1  # the first of them is predicted by the token before it
    return model.apply({"params": params}, batch.tokens, batch.mask, keys=keys, **given)


def after_first(batch: TokenBatch | PackedBatch, x):
    """`x [B, T]`, and 0 where a packed text begins: nothing predicts its first token.

    At the first token of a row it is 0 anyway.
    """
    if not isinstance(batch, PackedBatch):
        return x
    return jnp.where(batch.segments == shift_right(batch.segments), x, 0)


def check_one_text_a_row(batch) -> None:
    """Raise a one-line `UserError` for packed rows where a row gets one number."""
    if isinstance(batch, PackedBatch):
        raise UserError("a row gets one number here, so it must hold one text; do not pack it")


def is_small(outputs, tokens) -> bool:
    """Whether all logits of a batch may exist at once."""
    return tokens.size * outputs.unembedding.shape[1] <= DENSE_LOGITS


def logps_of(outputs, tokens, *, temperature: float, last: int | None = None):
    """`[B, T]` log-probabilities of the tokens in nats, dense or fused by the size of the logits.

    With `last`, of so many tokens at the end alone, and 0 before: no others get logits.
    """
    return logps_and_entropy_of(outputs, tokens, temperature=temperature, last=last)[0]


def logps_and_entropy_of(outputs, tokens, *, temperature: float, last: int | None = None):
    """The same, and the entropy of the distribution that each token was drawn from."""
    start = 1 if last is None else tokens.shape[1] - last  # nothing predicts the first token
    before = dataclasses.replace(outputs, hidden=outputs.hidden[:, start - 1 : -1])
    both = action_logps_and_entropy_of(before, tokens[:, start:], temperature=temperature)
    return tuple(jnp.pad(x, ((0, 0), (start, 0))) for x in both)


@once
def text_logps(model, *, temperature: float = 1.0):
    """`(params, TokenBatch, keys=None) -> [B, T]`: log pi(token) in nats.

    Of `SharedPrompts` it gives `[B, K, R]`, of a `PackedBatch` `[B, T]`: the same numbers for the
    same sequences.
    """

    def logps(params, batch: TokenBatch | PackedBatch | SharedPrompts, keys=None):
        if isinstance(batch, SharedPrompts):
            return shared_logps_and_entropy(model, params, batch, keys, temperature)[0]
        outputs = forward(model, params, batch, keys)
        return after_first(batch, logps_of(outputs, batch.tokens, temperature=temperature))

    return logps


@once
def text_logps_and_collisions(model, *, temperature: float = 1.0):
    """`(params, TokenBatch, keys=None) -> (logps, log_collisions)`, of the shapes of `text_logps`.

    The second, log sum_v pi(v)^2 in nats, has no gradient.
    """

    def both(params, batch: TokenBatch | PackedBatch | SharedPrompts, keys=None):
        if isinstance(batch, SharedPrompts):
            outputs = predicting_responses(model, params, batch, keys)
            actions = _in_a_row(batch.responses)
            logps, _ = action_logps_and_entropy_of(outputs, actions, temperature=temperature)
            collisions = log_collisions_of(outputs, actions, temperature=temperature)
            return tuple(_of_responses(x, batch) for x in (logps, collisions))
        outputs = forward(model, params, batch, keys)
        logps = logps_of(outputs, batch.tokens, temperature=temperature)
        collisions = log_collisions_of(outputs, batch.tokens, temperature=temperature)
        return tuple(after_first(batch, x) for x in (logps, shift_right(collisions)))

    return both


def log_collisions_of(outputs, tokens, *, temperature: float):
    """`[B, T]` log-chances that two draws at each position are the same: no shift, no gradient."""
    hidden, unembedding = jax.lax.stop_gradient((outputs.hidden, outputs.unembedding))

    def of_positions(hidden):
        logits = logits_of(hidden, unembedding, outputs.softcap, outputs.token_ranges)
        return log_collisions(tempered(logits, temperature))

    if is_small(outputs, tokens):
        return of_positions(hidden)
    return map_time_chunks(of_positions, (hidden,), CHUNK)


def shared_logps_and_entropy(model, params, batch: SharedPrompts, keys, temperature: float):
    """Log-probabilities and entropies of the responses, both `[B, K, R]`."""
    outputs = predicting_responses(model, params, batch, keys)
    both = action_logps_and_entropy_of(outputs, _in_a_row(batch.responses), temperature=temperature)
    return tuple(_of_responses(x, batch) for x in both)


def _of_responses(x, batch: SharedPrompts):
    """`[B, K R]` as `[B, K, R]`; as everywhere, nothing predicts a token with none before it."""
    length = batch.responses.shape[2]
    begun = batch.prompt_mask.any(axis=1)[:, None, None] | (jnp.arange(length) > 0)[None, None]
    return jnp.where(begun, x.reshape(batch.responses.shape), 0.0)


def predicting_responses(model, params, batch: SharedPrompts, keys):
    """What the network makes of the tokens before the responses' `[B, K R]`: each is predicted
    from the token before it, the first from the prompt's last.

    Only the positions that predict a response's token get logits.
    """
    count = batch.responses.shape[1]
    prompt = batch.prompts.shape[1]
    tokens = jnp.concatenate([batch.prompts, _in_a_row(batch.responses)], axis=1)
    mask = jnp.concatenate([batch.prompt_mask, _in_a_row(batch.mask)], axis=1)
    branches = Branches(shared=prompt, count=count)
    columns = tokens.shape[1] - prompt + 1
    outputs = model.apply(
        {"params": params}, tokens, mask, keys=keys, branches=branches, last=columns
    )
    last = jnp.repeat(outputs.hidden[:, None, prompt - 1 : prompt], count, axis=1)
    own = outputs.hidden[:, prompt:].reshape(*batch.responses.shape, -1)
    before = jnp.concatenate([last, own[:, :, :-1]], axis=2)
    return dataclasses.replace(outputs, hidden=_in_a_row(before))


def _in_a_row(x):
    """`[B, K, R, ...]` as `[B, K R, ...]`."""
    return x.reshape(x.shape[0], -1, *x.shape[3:])


def action_logps_and_entropy_of(outputs, actions, *, temperature: float):
    """Of actions `[B, T]` that these hidden states choose: no shift."""
    if is_small(outputs, actions):
        logits = tempered(outputs.logits, temperature)
        return action_logps(logits, actions), entropy(logits)
    return fused_action_logps_and_entropy(
        outputs.hidden,
        outputs.unembedding,
        actions,
        temperature=temperature,
        softcap=outputs.softcap,
        chunk_size=CHUNK,
        token_ranges=outputs.token_ranges,
    )


@once
def text_policy(model, *, temperature: float = 1.0, last: int | None = None):
    """`(params, Experience, keys=None) -> (logps, entropy, values)`, each `[B, T]`, for PPO.

    With `last`, of so many tokens at the end alone, and anything before.
    """

    def evaluate(params, batch: Experience, keys=None):
        rows = batch.inputs
        outputs = forward(model, params, rows, keys, last)
        both = logps_and_entropy_of(outputs, rows.tokens, temperature=temperature, last=last)
        return *(after_first(rows, x) for x in both), outputs.values

    return evaluate


@once
def text_decisions(model, *, temperature: float = 1.0):
    """`(params, TokenBatch, keys=None) -> (logps, entropy)`, each `[B, T]`, for policy gradients
    without values.

    Of `SharedPrompts` it gives `[B, K, R]`, the same numbers for the same sequences.
    """

    def evaluate(params, batch: TokenBatch | PackedBatch | SharedPrompts, keys=None):
        if isinstance(batch, SharedPrompts):
            return shared_logps_and_entropy(model, params, batch, keys, temperature)
        outputs = forward(model, params, batch, keys)
        both = logps_and_entropy_of(outputs, batch.tokens, temperature=temperature)
        return tuple(after_first(batch, x) for x in both)

    return evaluate


@once
def text_scores(model):
    """`(params, TokenBatch, keys=None) -> [B]`: one reward-model score a text."""

    def scores(params, batch: TokenBatch, keys=None):
        check_one_text_a_row(batch)
        return model.apply({"params": params}, batch.tokens, batch.mask, keys=keys).scores

    return scores


@once
def pooled_texts(model):
    """`(params, TokenBatch) -> [B, D]`: what the score head reads of the trunk, once a text."""

    def pooled_of(params, batch: TokenBatch):
        check_one_text_a_row(batch)
        hidden = model.apply({"params": params}, batch.tokens, batch.mask).hidden
        return pooled(hidden, batch.mask, model.config.score_pooling)

    return pooled_of


@once
def head_scores(config: TransformerConfig, ngrams: NgramConfig | None = None):
    """`(params, TokenBatch, keys=None) -> [B]`: the scores of a head above a frozen trunk.

    `params` has `score`, what is known of n-grams where they are read, and `pooled [N, D]` of all
    texts, from `pooled_texts`; row i of the batch is text `index[i]` of them.
    """
    model = Transformer(config, ngrams=ngrams)

    def scores(params, batch: TokenBatch, keys=None):
        check_one_text_a_row(batch)
        tokens = filled(batch.tokens, batch.mask, jnp.zeros_like(batch.index))
        of_texts = params["pooled"][batch.index]
        own = {name: params[name] for name in ("score", FEATURES) if name in params}
        return model.apply({"params": own}, of_texts, tokens, batch.mask, method="text_scores")

    return scores


class Scored(NamedTuple):
    """What `ScoreColumns` gives."""

    scores: jax.Array


@dataclasses.dataclass(frozen=True)
class ScoreColumns:
    """Reward models side by side, in place of one: `[B, F]` scores instead of `[B]`.

    models: F transformers with a score head; a column is NaN where there is None instead, for
      scores that do not come from the device.
    """

    models: tuple[Any, ...]

    def apply(self, variables, tokens, mask, keys=None) -> Scored:
        """The scores of all models; `variables["params"]` holds the parameters of each."""
        missing = jnp.full(tokens.shape[:1], jnp.nan)
        columns = [
            missing if model is None else model.apply({"params": params}, tokens, mask).scores
            for model, params in zip(self.models, variables["params"], strict=True)
        ]
        return Scored(jnp.stack(columns, axis=1))


@once
def text_step_scores(model):
    """`(params, TokenBatch, keys=None) -> [B, T]`: a score after every token."""

    def step_scores(params, batch: TokenBatch | PackedBatch, keys=None):
        return forward(model, params, batch, keys).step_scores

    return step_scores


@once
def response_logps_of(model, *, temperature: float = 1.0):
    """`(params, TokenBatch) -> [B]`: log-probability of each response in nats."""
    logps = text_logps(model, temperature=temperature)

    def summed(params, batch: TokenBatch):
        check_one_text_a_row(batch)
        return sequence_logps(logps(params, batch), batch.response_mask)

    return summed


@once
def text_logits(model):
    """`(params, TokenBatch) -> [B, T, V]` float32: logits of a frozen teacher, as data of a batch.

    They take 4 B T V bytes, on the host and again on all devices together: 128 MiB for 32 rows of
    64 tokens from 16,384 words, 32 GiB for 64 rows of 1,024 tokens from 131,072.
    """

    def logits(params, batch: TokenBatch | PackedBatch):
        return forward(model, params, batch).logits

    return logits


@once
def text_divergences(model, *, temperature: float = 1.0):
    """`(params, TokenBatch, keys, teacher_logits, divergence) -> [B, T]`, for distillation.

    Entry t is `divergence(student_logits, teacher_logits)` of the distributions, at that
    temperature, that tokens[t] could be drawn from. Of the student's logits many exist at once
    only where they are small (see `DENSE_LOGITS`); beyond, `CHUNK` tokens at a time, made again in
    the backward pass.
    """

    def divergences(params, batch: TokenBatch | PackedBatch, keys, teacher_logits, divergence):
        outputs = forward(model, params, batch, keys)

        def of_positions(hidden, teacher):
            student = logits_of(hidden, outputs.unembedding, outputs.softcap, outputs.token_ranges)
            return divergence(*(tempered(logits, temperature) for logits in (student, teacher)))

        arrays = (outputs.hidden, teacher_logits)
        if is_small(outputs, batch.tokens):
            return after_first(batch, shift_right(of_positions(*arrays)))
        in_chunks = map_time_chunks(jax.checkpoint(of_positions), arrays, CHUNK)
        return after_first(batch, shift_right(in_chunks))

    return divergences
