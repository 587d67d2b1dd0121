"""Causal grouped-query attention and its key-value cache."""

import itertools
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxalign.batches.tokens import pytree
from jaxalign.logprobs import softcapped
from jaxalign.models.architecture import TransformerConfig
from jaxalign.models.kernels import AttentionMask, kernel_for, scaled
from jaxalign.models.layers import last_columns, make_norm
from jaxalign.models.rope import Rotation, rotate
from jaxalign.models.shared_prefix import SharedPrefix
from jaxalign.numerics.matmul import dot_general

BLOCK = 64  # queries that are compared with their keys at a time
MASKED = -1e30  # finite, so that a row without any visible key is uniform, with a finite gradient

LayerCache = tuple[jax.Array, jax.Array, jax.Array]  # keys, values, and the column to write at
Masks = AttentionMask | tuple[AttentionMask, AttentionMask]  # two with a shared prefix


@pytree
class Cache:
    """Key-value cache for decoding: keys and values of the columns that have been read.

    keys, values: one `[B, K, S, H]` buffer a layer (K key-value heads of width H).
    mask: `[B, S]` bool, true on real tokens that have been read.
    last_tokens: `[B]` int32, the last real token of every row (0 where there is none).
    length: int32 scalar, number of columns read, padding included.
    """

    keys: tuple[jax.Array, ...]
    values: tuple[jax.Array, ...]
    mask: jax.Array
    last_tokens: jax.Array
    length: jax.Array


def causal_mask(
    mask: jax.Array,
    offset: jax.Array | int,
    queries: int,
    *,
    segments: jax.Array | None = None,
    branches: jax.Array | None = None,
) -> jax.Array:
    """Causal attention mask: query t, in column offset + t, sees real tokens up to that column.

    Args:
      mask: `[B, S]` bool, true on real tokens.
      offset: column of the first query.
      queries: T, their number.
      segments: `[B, S]` int32, the text that each token of a packed row belongs to; a token sees
        those of its own text alone.
      branches: `[B, S]` int32, the branch of its text that each token belongs to, 0: all; a token
        sees those of its own branch and of all.

    Returns:
      `[B, T, S]` bool, true where a query sees a key.
    """
    columns = jnp.arange(mask.shape[1], dtype=jnp.int32)
    ages = offset + jnp.arange(queries, dtype=jnp.int32)[:, None] - columns[None, :]
    visible = mask[:, None, :] & (ages >= 0)[None]
    if segments is not None:
        visible &= segments[:, :, None] == segments[:, None, :]
    if branches is not None:
        own, keys = branches[:, offset:, None], branches[:, None, :]
        visible &= (keys == own) | (keys == 0)
    return visible


def attention_mask(
    mask: jax.Array,
    queries: int,
    *,
    segments: jax.Array | None = None,
    branches: jax.Array | None = None,
) -> AttentionMask:
    """Attention mask of the last `queries` positions over all keys; arguments of `causal_mask`."""
    offset = mask.shape[1] - queries
    own = jnp.ones_like(mask, jnp.int32) if segments is None else segments + 1
    ids = own[:, offset:], jnp.where(mask, own, 0)
    return AttentionMask(
        visible=causal_mask(mask, offset, queries, segments=segments, branches=branches),
        segment_ids=ids if branches is None else None,
    )


def shared_prefix_masks(
    mask: jax.Array, shared_prefix: SharedPrefix
) -> tuple[AttentionMask, AttentionMask]:
    """Attention masks of the prefix, P queries of P keys, and of the continuations, R of P + R."""
    prefix, sequences = shared_prefix.prefix(mask, 1), shared_prefix.sequences(mask, 1)
    own = sequences.shape[1] - shared_prefix.columns
    return attention_mask(prefix, shared_prefix.columns), attention_mask(sequences, own)


def of_last_queries(mask: AttentionMask, last: int | None) -> AttentionMask:
    """Attention mask of the last queries alone, `last` of them; None: of all."""
    ids = mask.segment_ids
    if ids is not None:
        ids = last_columns(ids[0], last, axis=1), ids[1]
    return AttentionMask(visible=last_columns(mask.visible, last, axis=1), segment_ids=ids)


def attend(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    visible: jax.Array,
    *,
    scale: float | jax.Array | None = None,
    softcap: float | None = None,
) -> jax.Array:
    """Softmax attention in which groups of query heads share a key-value head.

      out = softmax(scale q k^T) v

    Args:
      q: `[B, N, T, H]`; head n reads key-value head n // (N / K).
      k, v: `[B, K, S, H]`.
      visible: `[B, T, S]` bool.
      scale: None: 1 / sqrt(H).
      softcap: bound of the scaled products; None: none.

    Returns:
      `[B, N, T, H]`.

    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, Eq. 1; Ainslie et al. 2023,
    https://arxiv.org/abs/2305.13245.
    """
    batch, heads, length, width = q.shape
    groups = heads // k.shape[1]
    wide = jnp.promote_types(q.dtype, jnp.float32)
    q = scaled(q, scale).reshape(batch, k.shape[1], groups * length, width)
    logits = jnp.einsum("bkth,bksh->bkts", q, k, preferred_element_type=wide)
    logits = softcapped(logits.reshape(batch, heads, length, k.shape[2]), softcap)
    weights = jax.nn.softmax(jnp.where(visible[:, None], logits, MASKED)).astype(v.dtype)
    weights = weights.reshape(batch, k.shape[1], groups * length, k.shape[2])
    return jnp.einsum("bkts,bksh->bkth", weights, v).reshape(batch, heads, length, width)


def attend_with_shared_prefix(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    shared_prefix: SharedPrefix,
    *,
    masks: tuple[AttentionMask, AttentionMask],
    **settings: Any,
) -> jax.Array:
    """Attention in rows of a shared prefix and its continuations, which do not see each other.

    Args:
      q: as in `attend`, of the last columns of a row, at least one of the prefix among them.
      k, v: as in `attend`, of the whole row.
      shared_prefix: columns of the prefix and number of continuations.
      masks: from `shared_prefix_masks`.
      settings: scale and softcap.
    """
    queried = shared_prefix.of_last(q.shape[2], k.shape[2])
    of_prefix = queried.prefix(q, 2), *(shared_prefix.prefix(x, 2) for x in (k, v))
    prefix = attend_to_rows(*of_prefix, mask=of_last_queries(masks[0], queried.columns), **settings)
    sequences = (shared_prefix.sequences(x, 2) for x in (k, v))
    own = attend_to_rows(queried.continuations(q, 2), *sequences, mask=masks[1], **settings)
    return queried.rows(prefix, own, 2)


def attend_to_rows(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    mask: AttentionMask,
    scale: float | jax.Array | None,
    softcap: float | None,
) -> jax.Array:
    """Attention over whole rows: the accelerator's own kernel where it has one, else in blocks.

    Args:
      q, k, v, scale, softcap: as in `attend`; the queries are in the last T of the S columns.
      mask: of these queries and keys.
    """
    settings = {"scale": scale, "softcap": softcap}
    if kernel := kernel_for(q, k, mask=mask, softcap=softcap):
        return kernel(q, k, v, mask=mask, **settings)
    return attend_in_blocks(q, k, v, visible=mask.visible, **settings)


def attend_to_cache(
    q: jax.Array, k: jax.Array, v: jax.Array, *, mask: AttentionMask, **settings: Any
) -> jax.Array:
    """Attention over a cache in blocks of queries, so that a long prompt needs little memory.

    Args:
      q, k, v: as in `attend`; the queries are anywhere in the columns of a cache.
      mask: of these queries and keys.
      settings: scale and softcap.
    """
    parts = [attend(q[:, :, start:stop], k, v, mask.visible[:, start:stop], **settings)
             for start, stop in blocks(q.shape[2])]  # fmt: skip
    return jnp.concatenate(parts, axis=2)


def attend_in_blocks(
    q: jax.Array, k: jax.Array, v: jax.Array, *, visible: jax.Array, **settings: Any
) -> jax.Array:
    """Causal attention in blocks of queries, each with the keys only up to its last column.

    Args:
      q, k, v, visible: as in `attend`; the queries are in the last T of the S columns.
      settings: scale and softcap.
    """
    before, outputs = k.shape[2] - q.shape[2], []
    for start, stop in blocks(q.shape[2]):
        keys, values, seen = (
            jax.lax.slice_in_dim(x, 0, before + stop, axis=2)
            for x in (k, v, visible[:, start:stop])
        )
        outputs.append(attend(q[:, :, start:stop], keys, values, seen, **settings))
    return jnp.concatenate(outputs, axis=2)


def blocks(length: int) -> Iterator[tuple[int, int]]:
    """First and last-plus-one query of equal blocks of about `BLOCK` queries.

    >>> list(blocks(3)), list(blocks(130))
    ([(0, 3)], [(0, 65), (65, 130)])
    """
    count = max(round(length / BLOCK), 1)
    return itertools.pairwise(length * i // count for i in range(count + 1))


class Attention(nn.Module):
    """Self-attention of `heads` query heads over `kv_heads` key-value heads."""

    config: TransformerConfig
    output_init: nn.initializers.Initializer

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        *,
        rotation: Rotation | None,
        mask: Masks,
        shared_prefix: SharedPrefix | None,
        past: LayerCache | None,
        layer: int | jax.Array,
        last: int | None = None,
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """Attention over this call's columns, or over a cache with these columns written into it.

        Args:
          x: `[B, T, D]`.
          rotation: cosine and sine of `rotary`, or None.
          mask: which keys each column sees; from `shared_prefix_masks` with a shared prefix.
          shared_prefix: columns of the prefix and number of continuations, or None.
          past: this layer's cache, or None (then S = T).
          layer: its index, from 0.
          last: queries come from the last columns alone, so many of them; None: from all T.

        Returns:
          `[B, last, D]`, and the `[B, K, S, H]` keys and values that were attended to.
        """
        c, queried = self.config, last_columns(x, last, axis=1)
        q, k = self._project("query", queried, c.heads), self._project("key", x, c.kv_heads)
        v = self._project("value", x, c.kv_heads)
        if c.qk_norm:
            q, k = self._norm("query_norm")(q), self._norm("key_norm")(k)
        if rotation is not None:
            cos, sin = (last_columns(part, last, axis=2) for part in rotation)
            q, k = rotate(q, (cos, sin)), rotate(k, rotation)
        if past is not None:
            k, v = _write(past[0], k, past[2]), _write(past[1], v, past[2])
        settings = {"scale": self._scale(layer), "softcap": c.attention_softcap}
        if shared_prefix is not None:
            assert isinstance(mask, tuple)
            out = attend_with_shared_prefix(q, k, v, shared_prefix, masks=mask, **settings)
        else:
            assert isinstance(mask, AttentionMask)
            attend_rows = attend_to_rows if past is None else attend_to_cache
            out = attend_rows(q, k, v, mask=of_last_queries(mask, last), **settings)
        output = nn.Dense(
            x.shape[-1],
            use_bias=c.output_biases,
            dtype=c.dtype,
            dot_general=dot_general,
            kernel_init=self.output_init,
            name="output",
        )
        return output(out.swapaxes(1, 2).reshape(*queried.shape[:2], -1)), (k, v)

    def _scale(self, layer: int | jax.Array) -> float | jax.Array | None:
        """Factor of the products of queries and keys in a layer; None: 1 / sqrt(head width)."""
        c, scale = self.config, self.config.attention_scale
        if not c.attention_scale_by_layer:
            return scale
        return (c.head_width**-0.5 if scale is None else scale) / (layer + 1)

    def _project(self, name: str, x: jax.Array, heads: int) -> jax.Array:
        c = self.config
        dense = nn.Dense(
            heads * c.head_width, c.qkv_biases, dtype=c.dtype, dot_general=dot_general, name=name
        )
        return dense(x).reshape(*x.shape[:2], heads, c.head_width).swapaxes(1, 2)

    def _norm(self, name: str) -> nn.Module:
        c = self.config
        return make_norm("rms", epsilon=c.norm_epsilon, dtype=c.dtype, name=name)


def _write(buffer: jax.Array, new: jax.Array, column: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_slice_in_dim(buffer, new.astype(buffer.dtype), column, axis=2)
