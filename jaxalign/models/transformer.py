"""The policy, value and reward network: a decoder-only transformer and its heads."""

import dataclasses
from typing import Any, Protocol, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxalign.batches.tokens import pytree
from jaxalign.errors import UserError
from jaxalign.logprobs import Ranges, logits_of
from jaxalign.models.architecture import TransformerConfig
from jaxalign.models.attention import (
    Cache,
    Masks,
    attention_mask,
    causal_mask,
    shared_prefix_masks,
)
from jaxalign.models.heads import (
    ScoreHead,
    StepScoreHead,
    ValueHead,
    pooled,
)
from jaxalign.models.kernels import AttentionMask
from jaxalign.models.layer_stack import unstacked
from jaxalign.models.layers import filled, fold, positions_of
from jaxalign.models.ngram_reward import NgramConfig, NgramFeatures, NgramScoreHead
from jaxalign.models.rope import rotary
from jaxalign.models.shared_prefix import SharedPrefix
from jaxalign.models.trunk import Context, Trunk
from jaxalign.numerics.types import Params

__all__ = [
    "Cache",
    "LanguageModel",
    "Outputs",
    "Transformer",
    "TransformerConfig",
    "empty_cache",
    "unrolled",
]


# Folded into the dropout keys of a separate value trunk, beyond any site of the policy's trunk.
VALUE_TRUNK = 1 << 20


@pytree
class Outputs:
    """Outputs of a forward pass; those of heads that the network lacks are None.

    hidden: `[B, T, D]` after the final norm, compute dtype; padding repeats the last real token; 0
      in columns that nobody reads.
    unembedding: `[D, V]`, compute dtype; logits are `hidden @ unembedding`, summed in float32.
    softcap: bound of the logits, `softcap tanh(logits / softcap)`; None: none.
    token_ranges: the ids that are tokens, see `TransformerConfig`.
    values: `[B, T]` float32, entry t is the value before tokens[t] was chosen.
    scores: `[B]` float32.
    step_scores: `[B, T]` float32, entry t is the score of a step that ends with tokens[t].
    cache: the cache with this call's columns written, when one was given.
    """

    hidden: jax.Array
    unembedding: jax.Array | None
    softcap: float | None = dataclasses.field(metadata={"static": True})
    token_ranges: Ranges = dataclasses.field(default=(), metadata={"static": True})
    values: jax.Array | None
    scores: jax.Array | None
    step_scores: jax.Array | None
    cache: Cache | None

    @property
    def logits(self) -> jax.Array:
        """`[B, T, V]` float32; entry t predicts tokens[t + 1]."""
        assert self.unembedding is not None, "this network has no logits head"
        return logits_of(self.hidden, self.unembedding, self.softcap, self.token_ranges)


class LanguageModel(Protocol):
    """A transformer, with or without adapters (`Transformer`, `Adapted`)."""

    @property
    def config(self) -> TransformerConfig:
        """Architecture of the transformer."""
        ...

    @property
    def ngrams(self) -> NgramConfig | None:
        """What its score reads beside or instead of hidden states; None: nothing."""
        ...

    def apply(self, *arguments: Any, **options: Any) -> Any:
        """`Outputs` for `({"params": params}, tokens, mask)` and the options of `Transformer`."""
        ...

    def clone(self, *arguments: Any, **changes: Any) -> Any:
        """The same model with other fields."""
        ...


Model = TypeVar("Model", bound=LanguageModel)


class Transformer(nn.Module):
    """Decoder-only transformer with the heads of `config.heads_out`.

    Positions count the real tokens of a row, and padding is never attended to, so left, right and
    interior padding give the same numbers on real tokens. Keys turn dropout on.

    ngrams: what the score reads of a text beside or instead of hidden states; None: nothing.
    """

    config: TransformerConfig
    ngrams: NgramConfig | None = None

    def setup(self):
        c = self.config
        self.trunk = Trunk(c)
        if "logits" in c.heads_out and not c.tie_embeddings:
            init = nn.initializers.lecun_normal()
            self.unembedding = self.param("unembedding", init, (c.width, c.vocab_size))
        if "value" in c.heads_out:
            self.value = ValueHead()
            if c.value_trunk == "separate":
                self.value_trunk = Trunk(c)
        if "score" in c.heads_out:
            self._set_up_score()
        if "step_score" in c.heads_out:
            self.step_score = StepScoreHead()

    def _set_up_score(self):
        if self.ngrams is None:
            self.score = ScoreHead()
            return
        self.ngram_features = NgramFeatures(self.ngrams, self.config.vocab_size)
        self.score = NgramScoreHead(self.ngrams, self.config.vocab_size)

    def __call__(
        self,
        tokens: jax.Array,
        mask: jax.Array,
        *,
        keys: jax.Array | None = None,
        cache: Cache | None = None,
        segments: jax.Array | None = None,
        branches: jax.Array | None = None,
        shared_prefix: SharedPrefix | None = None,
        last: int | None = None,
    ) -> Outputs:
        """Hidden states and the outputs of the heads.

        A packed row (segments) has no score, which is of a single text. Rows with a shared prefix
        have hidden states and logits only.

        Args:
          tokens: `[B, T]` ids below vocab_size; anything where `mask` is false.
          mask: `[B, T]` bool, true on real tokens.
          keys: `[B]` typed keys for dropout, one an example; None for none. With segments `[B, S]`,
            one for each text.
          cache: columns read before, for decoding; there are no values or scores then.
          segments: `[B, T]` int32 from 0 on, equal on the tokens of one of several texts in a row;
            on padding that of the text before it.
          branches: `[B, T]` int32 beside segments, equal on the tokens of one of several
            continuations of a text, 0 on those before them; None: texts have none.
          shared_prefix: layout of every row, if it holds a prefix and continuations of it.
          last: number of columns at the end whose hidden states are read: those of other columns
            are left out in the last layer. With a shared prefix at least one of its columns is
            among them. None: those that the heads read.

        Raises:
          UserError: more columns than `max_length`; a cache with scanned layers, or with segments
            or a shared prefix; fewer last columns than the heads or the shared prefix need.
        """
        whole = segments is None and shared_prefix is None
        self._check(tokens.shape[1], cache, whole)
        if cache is not None:
            return self._continue(tokens, mask, keys, cache)
        tokens = filled(tokens, mask, jnp.zeros_like(tokens[:, 0]))
        heads = self.config.heads_out if shared_prefix is None else ("logits",)
        rows: dict[str, Any] = {"segments": segments, "shared_prefix": shared_prefix}
        last = self._last(last, mask, **rows)
        context = self._context_of_rows(mask, keys, last=last, branches=branches, **rows)
        hidden, _ = self.trunk(tokens, context, None)
        values = self._values(hidden, tokens, mask, context) if "value" in heads else None
        scores = self._scores(hidden, tokens, mask) if whole and "score" in heads else None
        steps = self.step_score(hidden, mask) if "step_score" in heads else None
        return self._outputs(hidden, values=values, scores=scores, step_scores=steps)

    def _continue(
        self, tokens: jax.Array, mask: jax.Array, keys: jax.Array | None, cache: Cache
    ) -> Outputs:
        """Outputs for columns that follow those of the cache."""
        column, queries = cache.length, tokens.shape[1]
        seen = jax.lax.dynamic_update_slice_in_dim(cache.mask, mask, column, axis=1)
        positions = positions_of(mask, cache.mask.sum(axis=1, dtype=jnp.int32))
        tokens = filled(tokens, mask, cache.last_tokens)
        key_positions = positions_of(seen, jnp.zeros_like(cache.last_tokens))
        visible = AttentionMask(visible=causal_mask(seen, column, queries), segment_ids=None)
        context = self._context(positions, (positions, key_positions), visible, keys)
        past = [(k, v, column) for k, v in zip(cache.keys, cache.values, strict=True)]
        hidden, buffers = self.trunk(tokens, context, past)
        cache = Cache(
            keys=tuple(pair[0] for pair in buffers if pair),
            values=tuple(pair[1] for pair in buffers if pair),
            mask=seen,
            last_tokens=tokens[:, -1],
            length=column + queries,
        )
        return self._outputs(hidden, cache=cache)

    def _outputs(
        self,
        hidden: jax.Array,
        *,
        values: jax.Array | None = None,
        scores: jax.Array | None = None,
        step_scores: jax.Array | None = None,
        cache: Cache | None = None,
    ) -> Outputs:
        """Outputs with this network's unembedding."""
        return Outputs(
            hidden=hidden,
            unembedding=self._unembedding(),
            softcap=self.config.logit_softcap,
            token_ranges=self.config.token_ranges,
            values=values,
            scores=scores,
            step_scores=step_scores,
            cache=cache,
        )

    def _last(
        self,
        last: int | None,
        mask: jax.Array,
        *,
        segments: jax.Array | None,
        shared_prefix: SharedPrefix | None,
    ) -> int | None:
        """Number of columns at the end whose hidden states are read; None: all."""
        c, columns = self.config, mask.shape[1]
        reads_one = c.score_pooling == "last"
        if last is None and segments is None and c.heads_out == ("score",) and reads_one:
            last = 1
        if last is None or last == columns:
            return None
        least = 1 if shared_prefix is None else columns - shared_prefix.columns + 1
        reads_all = "score" in c.heads_out and not reads_one
        if shared_prefix is None and (reads_all or "step_score" in c.heads_out):
            least = columns
        if not least <= last < columns or segments is not None:
            raise UserError(
                f"the last {last} columns of {columns} do not stand for themselves: "
                f"wanted {least} or more, and no segments"
            )
        return last

    def _context_of_rows(
        self,
        mask: jax.Array,
        keys: jax.Array | None,
        *,
        segments: jax.Array | None,
        branches: jax.Array | None,
        shared_prefix: SharedPrefix | None,
        last: int | None,
    ) -> Context:
        """Context of rows that are read whole, without a cache."""
        if shared_prefix is not None:
            prefix, sequences = shared_prefix.positions(mask)
            own = sequences[:, shared_prefix.columns :]
            context = self._context(
                shared_prefix.rows(prefix, own, 1),
                ((prefix, own), (prefix, sequences)),
                shared_prefix_masks(mask, shared_prefix),
                keys,
            )
            return dataclasses.replace(context, shared_prefix=shared_prefix, last=last)
        texts = {"segments": segments, "branches": branches}
        visible = attention_mask(mask, mask.shape[1], **texts)
        if segments is None:
            positions = positions_of(mask, jnp.zeros_like(mask[:, 0], jnp.int32))
        else:  # a token's position is the number of tokens before it that it sees
            positions = jnp.maximum(visible.visible.sum(axis=2) - 1, 0)
        context = self._context(positions, (positions, positions), visible, keys)
        return dataclasses.replace(context, segments=segments, last=last)

    def _context(
        self,
        positions: jax.Array,
        compared: tuple[Any, Any],
        mask: Masks,
        keys: jax.Array | None,
    ) -> Context:
        """Context with the rotary angles and distances of these positions.

        Args:
          positions: `[B, T]` of the tokens.
          compared: positions of the queries and of their keys; with a shared prefix a pair of
            arrays each.
          mask: of the queries and keys.
          keys: typed keys for dropout, or None.
        """
        c = self.config
        rotation = window_rotation = distances = None
        if c.positions == "rope":
            rotation = rotary(positions, c.head_width, c.rope_theta, c.rope_scaling)
            window_rotation = rotation
            if c.window_rope_theta is not None:
                scaling = c.window_rope_scaling
                window_rotation = rotary(positions, c.head_width, c.window_rope_theta, scaling)
        if any(c.windows):
            distances = jax.tree.map(lambda q, k: q[:, :, None] - k[:, None, :], *compared)
        return Context(
            positions=positions,
            mask=mask,
            distances=distances,
            rotation=rotation,
            window_rotation=window_rotation,
            keys=keys,
            segments=None,
            shared_prefix=None,
            last=None,
        )

    def _unembedding(self) -> jax.Array | None:
        c = self.config
        if "logits" not in c.heads_out:
            return None
        weights = self.trunk.embedding.T if c.tie_embeddings else self.unembedding
        return weights.astype(c.dtype)

    def _scores(self, hidden: jax.Array, tokens: jax.Array, mask: jax.Array) -> jax.Array:
        return self.text_scores(pooled(hidden, mask, self.config.score_pooling), tokens, mask)

    def text_scores(self, text: jax.Array, tokens: jax.Array, mask: jax.Array) -> jax.Array:
        """Scores `[B]` of texts whose hidden states are read already.

        Args:
          text: `[B, D]` from `pooled`.
          tokens, mask: `[B, T]`; padding filled with ids of real tokens.
        """
        if isinstance(self.score, NgramScoreHead):
            return self.score(text, tokens, mask, self.ngram_features())
        return self.score(text, mask)

    def _values(
        self, hidden: jax.Array, tokens: jax.Array, mask: jax.Array, context: Context
    ) -> jax.Array:
        if self.config.value_trunk == "separate":
            keys = fold(context.keys, VALUE_TRUNK)
            hidden, _ = self.value_trunk(tokens, dataclasses.replace(context, keys=keys), None)
        return self.value(hidden, mask, context.segments)

    def _check(self, columns: int, cache: Cache | None, whole: bool) -> None:
        """Raise a one-line `UserError` for texts or options that the network cannot take.

        The columns of packed rows and of rows with a shared prefix do not tell a text's length.
        """
        c = self.config
        length = cache.mask.shape[1] if cache is not None else columns if whole else 1
        if length > c.max_length:
            raise UserError(
                f"{length} columns of tokens, but the model's max_length is {c.max_length}"
            )
        if cache is not None and not whole:
            raise UserError(
                "a cache goes on with one text a row: no segments or shared prefix with it"
            )
        if cache is not None and c.scan_layers:
            raise UserError(
                "a cache needs a network that is not scanned: use unrolled(model, params)"
            )


def empty_cache(config: TransformerConfig, tokens: jax.Array, columns: int) -> Cache:
    """An empty key-value cache for rows like `tokens [B, ...]`, with room for `columns` columns."""
    batch = tokens.shape[0]
    shape = (batch, config.kv_heads, columns, config.head_width)
    buffers = tuple(jnp.zeros_like(tokens, config.dtype, shape) for _ in range(config.layers))
    return Cache(
        keys=buffers,
        values=buffers,
        mask=jnp.zeros_like(tokens, bool, (batch, columns)),
        last_tokens=jnp.zeros_like(tokens, jnp.int32, (batch,)),
        length=jnp.int32(0),
    )


def unrolled(model: Model, params: Params) -> tuple[Model, Params]:
    """The same network with one parameter tree a layer instead of a scanned stack, for decoding."""
    if not model.config.scan_layers:
        return model, params
    config = dataclasses.replace(model.config, scan_layers=False)
    return model.clone(config=config), unstacked(params, config.layers)
