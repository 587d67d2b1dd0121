"""Models as plain functions for the objectives, and for the scoring passes of frozen models.

Reference log-probabilities, reward scores and old values are never computed in a step: a scoring
pass writes them into the batch once, before. The same model gives the same function object, so that
it compiles once.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp

from jaxalign.batches.experience import Experience
from jaxalign.batches.tokens import PackedBatch, SharedPrompts, TokenBatch
from jaxalign.errors import UserError
from jaxalign.logprobs import (
    FusedSettings,
    action_logps,
    entropy,
    fused_action_logps_and_entropy,
    fused_action_statistics,
    likeliest_logps,
    log_collisions,
    logits_of,
    map_time_chunks,
    sequence_logps,
    shift_right,
    tempered,
)
from jaxalign.models.architecture import TransformerConfig
from jaxalign.models.heads import pooled
from jaxalign.models.layers import filled
from jaxalign.models.ngram_reward import FEATURES, NgramConfig
from jaxalign.models.shared_prefix import SharedPrefix
from jaxalign.models.transformer import LanguageModel, Outputs, Transformer
from jaxalign.numerics.types import Params

# Up to so many logits (128 MiB) exist at once, where that is quicker; beyond, the fused forms with
# this many tokens at a time. The numbers are the same.
DENSE_LOGITS = 2**25
CHUNK = 1024

Maker = TypeVar("Maker", bound=Callable[..., Any])
Rows = TokenBatch | PackedBatch
Pair = tuple[jax.Array, jax.Array]


def once(make: Maker) -> Maker:
    """`functools.cache` with the signature kept: equal arguments give the same function object."""
    return cast(Maker, functools.cache(make))


def forward(
    model: LanguageModel,
    params: Params,
    batch: Rows,
    keys: jax.Array | None = None,
    *,
    last: int | None = None,
) -> Outputs:
    """Outputs of the network for rows of tokens; packed texts do not see each other.

    Args:
      model, params: the network.
      batch: `[B, T]` rows.
      keys: typed keys for dropout, see `Transformer`; None: no dropout.
      last: number of tokens at the end whose log-probabilities are needed; None: all.
    """
    options: dict[str, Any] = {}
    if isinstance(batch, PackedBatch):
        options = {"segments": batch.segments, "branches": batch.branches}
    if last is not None:
        options["last"] = last + 1  # the first of them is predicted by the token before it
    return model.apply({"params": params}, batch.tokens, batch.mask, keys=keys, **options)


def after_first(batch: Rows, x: jax.Array) -> jax.Array:
    """`x [B, T]` with 0 at the first token of each packed text, which nothing predicts, and of each
    of its branches.

    At the first token of a row it is 0 anyway.
    """
    if not isinstance(batch, PackedBatch):
        return x
    goes_on = batch.segments == shift_right(batch.segments)
    if batch.branches is not None:
        goes_on &= batch.branches == shift_right(batch.branches)
    return jnp.where(goes_on, x, 0)


def check_one_text_a_row(batch: Rows) -> None:
    """Raise a one-line `UserError` for packed rows where a row gets one number."""
    if isinstance(batch, PackedBatch):
        raise UserError("a row gets one number here, so it must hold one text; do not pack it")


def is_small(outputs: Outputs, tokens: jax.Array) -> bool:
    """Whether all logits of a batch may exist at once: no more than `DENSE_LOGITS`."""
    assert outputs.unembedding is not None, "this network has no logits head"
    return tokens.size * outputs.unembedding.shape[1] <= DENSE_LOGITS


def logps_of(
    outputs: Outputs, tokens: jax.Array, *, temperature: float, last: int | None = None
) -> jax.Array:
    """Log-probabilities of the tokens, dense or fused by the size of the logits.

    Args:
      outputs: of the network for these tokens.
      tokens: `[B, T]` ids.
      temperature: above 0.
      last: number of tokens at the end that are read; no others get logits. None: all.

    Returns:
      `[B, T]` nats, 0 before the tokens that are read.
    """
    return logps_and_entropy_of(outputs, tokens, temperature=temperature, last=last)[0]


def logps_and_entropy_of(
    outputs: Outputs, tokens: jax.Array, *, temperature: float, last: int | None = None
) -> Pair:
    """`logps_of`, and the entropy of the distribution that each token was drawn from."""
    start = 1 if last is None else tokens.shape[1] - last  # nothing predicts the first token
    before = dataclasses.replace(outputs, hidden=outputs.hidden[:, start - 1 : -1])
    both = action_logps_and_entropy_of(before, tokens[:, start:], temperature=temperature)
    logps, entropies = (jnp.pad(x, ((0, 0), (start, 0))) for x in both)
    return logps, entropies


@once
def text_logps(model: LanguageModel, *, temperature: float = 1.0) -> Callable[..., jax.Array]:
    """Log-probabilities of tokens: `(params, batch, keys=None) -> [B, T]` log pi(token) in nats.

    The batch is a `TokenBatch`, a `PackedBatch`, or `SharedPrompts` (`[B, K, R]` then): the same
    numbers for the same sequences.
    """

    def logps(
        params: Params, batch: Rows | SharedPrompts, keys: jax.Array | None = None
    ) -> jax.Array:
        if isinstance(batch, SharedPrompts):
            return shared_logps_and_entropy(model, params, batch, keys, temperature=temperature)[0]
        outputs = forward(model, params, batch, keys)
        return after_first(batch, logps_of(outputs, batch.tokens, temperature=temperature))

    return logps


@once
def text_logps_and_likeliest(model: LanguageModel) -> Callable[..., Pair]:
    """Log-probabilities of tokens, and of the likeliest ones in their place, from one pass.

    `(params, batch, keys=None) -> (logps, likeliest)`, both `[B, T]` nats; the second has no
    gradient. Where they are equal the model's first choice is the token.
    """

    def both(params: Params, batch: Rows, keys: jax.Array | None = None) -> Pair:
        outputs = forward(model, params, batch, keys)
        before = dataclasses.replace(outputs, hidden=outputs.hidden[:, :-1])
        pair = _action_logps_and_likeliest(before, batch.tokens[:, 1:])
        logps, likeliest = (jnp.pad(x, ((0, 0), (1, 0))) for x in pair)
        return after_first(batch, logps), after_first(batch, likeliest)

    return both


def _action_logps_and_likeliest(outputs: Outputs, actions: jax.Array) -> Pair:
    if is_small(outputs, actions):
        logits = outputs.logits
        return action_logps(logits, actions), jax.lax.stop_gradient(likeliest_logps(logits))
    assert outputs.unembedding is not None, "this network has no logits head"
    settings = FusedSettings(1.0, outputs.softcap, CHUNK, outputs.token_ranges)
    statistics = fused_action_statistics(settings, outputs.hidden, outputs.unembedding, actions)
    return statistics[0], statistics[2]


@once
def text_logps_and_collisions(
    model: LanguageModel, *, temperature: float = 1.0
) -> Callable[..., Pair]:
    """Log-probabilities of tokens, and of two equal draws in their place.

    `(params, batch, keys=None) -> (logps, log_collisions)`, of the shapes of `text_logps`. The
    second, log sum_v pi(v)^2 in nats, has no gradient.
    """

    def both(params: Params, batch: Rows | SharedPrompts, keys: jax.Array | None = None) -> Pair:
        if isinstance(batch, SharedPrompts):
            outputs = predicting_responses(model, params, batch, keys)
            actions = _in_a_row(batch.responses)
            logps, _ = action_logps_and_entropy_of(outputs, actions, temperature=temperature)
            collisions = log_collisions_of(outputs, actions, temperature=temperature)
            return _of_responses(logps, batch), _of_responses(collisions, batch)
        outputs = forward(model, params, batch, keys)
        logps = logps_of(outputs, batch.tokens, temperature=temperature)
        collisions = log_collisions_of(outputs, batch.tokens, temperature=temperature)
        return after_first(batch, logps), after_first(batch, shift_right(collisions))

    return both


def log_collisions_of(outputs: Outputs, tokens: jax.Array, *, temperature: float) -> jax.Array:
    """`[B, T]` log-probability that two draws at a position are equal: no shift, no gradient."""
    assert outputs.unembedding is not None, "this network has no logits head"
    hidden, unembedding = jax.lax.stop_gradient((outputs.hidden, outputs.unembedding))

    def of_positions(hidden: jax.Array) -> jax.Array:
        logits = logits_of(hidden, unembedding, outputs.softcap, outputs.token_ranges)
        return log_collisions(tempered(logits, temperature))

    if is_small(outputs, tokens):
        return of_positions(hidden)
    return map_time_chunks(of_positions, (hidden,), CHUNK)


def shared_logps_and_entropy(
    model: LanguageModel,
    params: Params,
    batch: SharedPrompts,
    keys: jax.Array | None,
    *,
    temperature: float,
) -> Pair:
    """Log-probabilities and entropies of responses behind shared prompts, both `[B, K, R]` nats."""
    outputs = predicting_responses(model, params, batch, keys)
    both = action_logps_and_entropy_of(outputs, _in_a_row(batch.responses), temperature=temperature)
    return _of_responses(both[0], batch), _of_responses(both[1], batch)


def _of_responses(x: jax.Array, batch: SharedPrompts) -> jax.Array:
    """`[B, K R]` as `[B, K, R]`, with 0 at a token that has none before it: nothing predicts it."""
    length = batch.responses.shape[2]
    begun = batch.prompt_mask.any(axis=1)[:, None, None] | (jnp.arange(length) > 0)[None, None]
    return jnp.where(begun, x.reshape(batch.responses.shape), 0.0)


def predicting_responses(
    model: LanguageModel, params: Params, batch: SharedPrompts, keys: jax.Array | None
) -> Outputs:
    """Outputs at the positions that predict the tokens of responses, `[B, K R]`, without a shift.

    A token is predicted from the one before it, the first of a response from the prompt's last.
    """
    count = batch.responses.shape[1]
    prompt = batch.prompts.shape[1]
    tokens = jnp.concatenate([batch.prompts, _in_a_row(batch.responses)], axis=1)
    mask = jnp.concatenate([batch.prompt_mask, _in_a_row(batch.mask)], axis=1)
    shared_prefix = SharedPrefix(columns=prompt, count=count)
    columns = tokens.shape[1] - prompt + 1
    outputs = model.apply(
        {"params": params}, tokens, mask, keys=keys, shared_prefix=shared_prefix, last=columns
    )
    last = jnp.repeat(outputs.hidden[:, None, prompt - 1 : prompt], count, axis=1)
    own = outputs.hidden[:, prompt:].reshape(*batch.responses.shape, -1)
    before = jnp.concatenate([last, own[:, :, :-1]], axis=2)
    return dataclasses.replace(outputs, hidden=_in_a_row(before))


def _in_a_row(x: jax.Array) -> jax.Array:
    """`[B, K, R, ...]` as `[B, K R, ...]`."""
    return x.reshape(x.shape[0], -1, *x.shape[3:])


def action_logps_and_entropy_of(
    outputs: Outputs, actions: jax.Array, *, temperature: float
) -> Pair:
    """Log-probabilities of actions, and entropies, under the logits of the same position: no shift.

    Args:
      outputs: of the network, with a logits head.
      actions: `[B, T]` ids.
      temperature: above 0.

    Returns:
      Two `[B, T]` arrays in nats.
    """
    if is_small(outputs, actions):
        logits = tempered(outputs.logits, temperature)
        return action_logps(logits, actions), entropy(logits)
    assert outputs.unembedding is not None, "this network has no logits head"
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
def text_policy(
    model: LanguageModel, *, temperature: float = 1.0, last: int | None = None
) -> Callable[..., tuple[jax.Array, jax.Array, jax.Array]]:
    """Policy and values for PPO: `(params, Experience, keys=None) -> (logps, entropy, values)`.

    Each is `[B, T]`; with `last`, right at the last tokens alone, so many of them.
    """

    def evaluate(
        params: Params, batch: Experience, keys: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        rows = batch.inputs
        outputs = forward(model, params, rows, keys, last=last)
        assert outputs.values is not None, "this network has no value head"
        both = logps_and_entropy_of(outputs, rows.tokens, temperature=temperature, last=last)
        return after_first(rows, both[0]), after_first(rows, both[1]), outputs.values

    return evaluate


@once
def text_decisions(model: LanguageModel, *, temperature: float = 1.0) -> Callable[..., Pair]:
    """Policy for policy gradients without values: `(params, batch, keys=None) -> (logps, entropy)`.

    Each is `[B, T]`, of `SharedPrompts` `[B, K, R]`: the same numbers for the same sequences.
    """

    def evaluate(
        params: Params, batch: Rows | SharedPrompts, keys: jax.Array | None = None
    ) -> Pair:
        if isinstance(batch, SharedPrompts):
            return shared_logps_and_entropy(model, params, batch, keys, temperature=temperature)
        outputs = forward(model, params, batch, keys)
        both = logps_and_entropy_of(outputs, batch.tokens, temperature=temperature)
        return after_first(batch, both[0]), after_first(batch, both[1])

    return evaluate


@once
def text_scores(model: "LanguageModel | ScoreColumns") -> Callable[..., jax.Array]:
    """Reward-model scores of texts: `(params, TokenBatch, keys=None) -> [B]`."""

    def scores(params: Params, batch: TokenBatch, keys: jax.Array | None = None) -> jax.Array:
        check_one_text_a_row(batch)
        return model.apply({"params": params}, batch.tokens, batch.mask, keys=keys).scores

    return scores


def reads_last(model: LanguageModel) -> bool:
    """Whether the score of a text is read from its last token alone."""
    return model.config.score_pooling == "last" and model.ngrams is None


@once
def text_end_scores(model: LanguageModel) -> Callable[..., jax.Array]:
    """Reward-model scores of packed texts: `(params, PackedBatch, keys=None) -> [B, T]`.

    Entry t is the score of a text that ends with token t: `text_scores` of a model that
    `reads_last`.
    """
    head = Transformer(model.config)

    def scores(params: Params, batch: PackedBatch, keys: jax.Array | None = None) -> jax.Array:
        hidden = forward(model, params, batch, keys).hidden.astype(jnp.float32)
        texts = hidden.reshape(-1, hidden.shape[-1]), *_columns(batch.tokens, batch.mask)
        own = {"params": {"score": params["score"]}}
        of_tokens: Any = head.apply(own, *texts, method="text_scores")
        return of_tokens.reshape(batch.tokens.shape)

    return scores


def _columns(*arrays: jax.Array) -> Iterator[jax.Array]:
    """`[B, T]` as `[B T, 1]`."""
    return (x.reshape(-1, 1) for x in arrays)


@once
def pooled_texts(model: LanguageModel) -> Callable[..., jax.Array]:
    """Pooled hidden states that the score head reads: `(params, TokenBatch) -> [B, D]`."""

    def pooled_of(params: Params, batch: TokenBatch) -> jax.Array:
        check_one_text_a_row(batch)
        hidden = model.apply({"params": params}, batch.tokens, batch.mask).hidden
        return pooled(hidden, batch.mask, model.config.score_pooling)

    return pooled_of


@once
def head_scores(config: TransformerConfig, ngrams: NgramConfig | None = None):
    """Scores of a head above a frozen trunk: `(params, TokenBatch, keys=None) -> [B]`.

    `params` has `score`, what is known of n-grams where they are read, and `pooled [N, D]` of all
    texts, from `pooled_texts`; row i of the batch is text `index[i]` of them.
    """
    model = Transformer(config, ngrams=ngrams)

    def scores(params: Params, batch: TokenBatch, keys: jax.Array | None = None) -> Any:
        check_one_text_a_row(batch)
        tokens = filled(batch.tokens, batch.mask, jnp.zeros_like(batch.index))
        of_texts = params["pooled"][batch.index]
        own = {name: params[name] for name in ("score", FEATURES) if name in params}
        return model.apply({"params": own}, of_texts, tokens, batch.mask, method="text_scores")

    return scores


class Scored(NamedTuple):
    """Outputs of `ScoreColumns`: `[B, F]` scores."""

    scores: jax.Array


@dataclasses.dataclass(frozen=True)
class ScoreColumns:
    """Several reward models in place of one: `[B, F]` scores instead of `[B]`.

    models: F transformers with a score head; None: a column of NaN, for scores that are computed
      on the host.
    """

    models: tuple[LanguageModel | None, ...]

    def apply(
        self,
        variables: dict[str, Any],
        tokens: jax.Array,
        mask: jax.Array,
        keys: jax.Array | None = None,
    ) -> Scored:
        """The scores of all models; `variables["params"]` holds the parameters of each."""
        missing = jnp.full(tokens.shape[:1], jnp.nan)
        columns = [
            missing if model is None else model.apply({"params": params}, tokens, mask).scores
            for model, params in zip(self.models, variables["params"], strict=True)
        ]
        return Scored(jnp.stack(columns, axis=1))


@once
def text_step_scores(model: LanguageModel) -> Callable[..., jax.Array]:
    """Process-reward scores after every token: `(params, TokenBatch, keys=None) -> [B, T]`."""

    def step_scores(params: Params, batch: Rows, keys: jax.Array | None = None) -> jax.Array:
        scores = forward(model, params, batch, keys).step_scores
        assert scores is not None, "this network has no step_score head"
        return scores

    return step_scores


@once
def response_logps_of(
    model: LanguageModel, *, temperature: float = 1.0
) -> Callable[..., jax.Array]:
    """Log-probabilities of whole responses: `(params, TokenBatch) -> [B]` nats."""
    logps = text_logps(model, temperature=temperature)

    def summed(params: Params, batch: TokenBatch) -> jax.Array:
        check_one_text_a_row(batch)
        return sequence_logps(logps(params, batch), batch.response_mask)

    return summed


@once
def text_logits(model: LanguageModel) -> Callable[..., jax.Array]:
    """Logits of a frozen teacher, as data of a batch: `(params, TokenBatch) -> [B, T, V]` float32.

    They take 4 B T V bytes, on the host and again on all devices together: 128 MiB for 32 rows of
    64 tokens from 16,384 words, 32 GiB for 64 rows of 1,024 tokens from 131,072.
    """

    def logits(params: Params, batch: Rows) -> jax.Array:
        return forward(model, params, batch).logits

    return logits


@once
def text_divergences(model: LanguageModel, *, temperature: float = 1.0) -> Callable[..., jax.Array]:
    """Divergences of the student's distributions from the teacher's, for distillation.

    `(params, TokenBatch, keys, teacher_logits, divergence) -> [B, T]`. Entry t is
    `divergence(student_logits, teacher_logits)` of the distributions, at that temperature, that
    tokens[t] could be drawn from. Of the student's logits many exist at once only where they are
    small (see `DENSE_LOGITS`); beyond, `CHUNK` tokens at a time, made again in the backward pass.
    """

    def divergences(
        params: Params,
        batch: Rows,
        keys: jax.Array | None,
        teacher_logits: jax.Array,
        divergence: Callable[[jax.Array, jax.Array], jax.Array],
    ) -> jax.Array:
        outputs = forward(model, params, batch, keys)
        unembedding = outputs.unembedding
        assert unembedding is not None, "this network has no logits head"

        def of_positions(hidden: jax.Array, teacher: jax.Array) -> jax.Array:
            student = logits_of(hidden, unembedding, outputs.softcap, outputs.token_ranges)
            return divergence(*(tempered(logits, temperature) for logits in (student, teacher)))

        arrays = (outputs.hidden, teacher_logits)
        if is_small(outputs, batch.tokens):
            return after_first(batch, shift_right(of_positions(*arrays)))
        in_chunks = map_time_chunks(jax.checkpoint(of_positions), arrays, CHUNK)
        return after_first(batch, shift_right(in_chunks))

    return divergences
