"""Causal grouped-query attention and its key-value cache."""

import itertools
from collections.abc import Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxalign.batches.tokens import pytree
from jaxalign.logprobs import softcapped
from jaxalign.models.architecture import TransformerConfig
from jaxalign.models.branches import Branches
from jaxalign.models.kernels import Sight, kernel_for, scaled
from jaxalign.models.layers import last_columns, make_norm
from jaxalign.models.rope import rotate
from jaxalign.numerics.matmul import dot_general

BLOCK = 64  # queries that are compared with their keys at a time
MASKED = -1e30  # finite, so that a row that sees nothing is uniform and has a finite gradient


@pytree
class Cache:
    """Keys and values of the columns that have been read, for decoding.

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


def visible_keys(
    mask: jax.Array,
    offset: jax.Array | int,
    queries: int,
    *,
    segments: jax.Array | None = None,
) -> jax.Array:
    """`[B, queries, S]`: query t, in column offset + t, sees real tokens up to that column.

    Args:
      mask: `[B, S]` bool, true on real tokens.
      offset: column of the first query.
      queries: their number.
      segments: `[B, S]` int32: several texts in a row; a token sees those of its own text alone.
    """
    columns = jnp.arange(mask.shape[1], dtype=jnp.int32)
    ages = offset + jnp.arange(queries, dtype=jnp.int32)[:, None] - columns[None, :]
    visible = mask[:, None, :] & (ages >= 0)[None]
    if segments is not None:
        visible &= segments[:, :, None] == segments[:, None, :]
    return visible


def sight_of_rows(mask: jax.Array, queries: int, *, segments: jax.Array | None = None) -> Sight:
    """What so many columns at the end of whole rows see; see `visible_keys`."""
    offset = mask.shape[1] - queries
    own = jnp.ones_like(mask, jnp.int32) if segments is None else segments + 1
    return Sight(
        visible=visible_keys(mask, offset, queries, segments=segments),
        numbers=(own[:, offset:], jnp.where(mask, own, 0)),
    )


def sights_in_branches(mask: jax.Array, branches: Branches) -> tuple[Sight, Sight]:
    """What the beginning sees, P of P columns, and each continuation, R of P + R."""
    first, texts = branches.beginning(mask, 1), branches.texts(mask, 1)
    own = texts.shape[1] - branches.shared
    return sight_of_rows(first, branches.shared), sight_of_rows(texts, own)


def of_last(sight: Sight, last: int | None) -> Sight:
    """The same for so many queries at the end; None: for all."""
    numbers = sight.numbers
    if numbers is not None:
        numbers = last_columns(numbers[0], last, axis=1), numbers[1]
    return Sight(visible=last_columns(sight.visible, last, axis=1), numbers=numbers)


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


def attend_in_branches(q, k, v, branches: Branches, *, sights, **settings) -> jax.Array:
    """`attend_to_rows` where continuations stand in a row behind their beginning.

    Args:
      q: as in `attend`, of a row's last columns, one of the beginning's at least among them.
      k, v: as in `attend`, of the whole row.
      branches: where they stand.
      sights: from `sights_in_branches`.
      settings: scale and softcap.
    """
    asking = branches.of_last(q.shape[2], k.shape[2])
    first = asking.beginning(q, 2), *(branches.beginning(x, 2) for x in (k, v))
    beginning = attend_to_rows(*first, sight=of_last(sights[0], asking.shared), **settings)
    texts = (branches.texts(x, 2) for x in (k, v))
    own = attend_to_rows(asking.continuations(q, 2), *texts, sight=sights[1], **settings)
    return asking.rows(beginning, own, 2)


def attend_to_rows(q, k, v, *, sight: Sight, scale, softcap) -> jax.Array:
    """`attend` over whole rows: by the accelerator's own kernel if it has one for this, in blocks
    otherwise.

    Args:
      q, k, v, scale, softcap: as in `attend`; the queries are in the last T of the S columns.
      sight: what they see.
    """
    settings = {"scale": scale, "softcap": softcap}
    if kernel := kernel_for(q, k, sight=sight, softcap=softcap):
        return kernel(q, k, v, sight=sight, **settings)
    return attend_in_blocks(q, k, v, visible=sight.visible, **settings)


def attend_to_cache(q, k, v, *, visible, **settings) -> jax.Array:
    """`attend`, a block of queries at a time: a long prompt does not hold all its weights at once.

    Args:
      q, k, v, visible: as in `attend`; the queries are anywhere in the columns of a cache.
      settings: scale and softcap.
    """
    parts = [attend(q[:, :, start:stop], k, v, visible[:, start:stop], **settings)
             for start, stop in blocks(q.shape[2])]  # fmt: skip
    return jnp.concatenate(parts, axis=2)


def attend_in_blocks(q, k, v, *, visible, **settings) -> jax.Array:
    """`attend`, a block of queries at a time, each with the keys only that it can see.

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
    """`(start, stop)` of equal blocks of queries, of about `BLOCK` each.

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
    def __call__(self, x, rotation, sight, branches, past, *, layer, last=None):
        """Attend over this call's columns, or over `past` with them written into it.

        Args:
          x: `[B, T, D]`.
          rotation: cosine and sine of `rotary`, or None.
          sight: what its columns see; from `sights_in_branches` if there are branches.
          branches: where continuations of one beginning stand, or None.
          past: (keys, values, column to write at) of the cache, or None (then S = T).
          layer: its number, from 0.
          last: only so many columns at the end ask; None: all T.

        Returns:
          `[B, last, D]`, and the `[B, K, S, H]` keys and values that were attended to.
        """
        c, asking = self.config, last_columns(x, last, axis=1)
        q, k = self._project("query", asking, c.heads), self._project("key", x, c.kv_heads)
        v = self._project("value", x, c.kv_heads)
        if c.qk_norm:
            q, k = self._norm("query_norm")(q), self._norm("key_norm")(k)
        if rotation is not None:
            cos, sin = (last_columns(part, last, axis=2) for part in rotation)
            q, k = rotate(q, (cos, sin)), rotate(k, rotation)
        if past is not None:
            k, v = (
                _write(buffer, new, past[2]) for buffer, new in zip(past[:2], (k, v), strict=True)
            )
        scale = c.attention_scale
        if c.attention_scale_by_layer:
            scale = (c.head_width**-0.5 if scale is None else scale) / (layer + 1)
        settings = {"scale": scale, "softcap": c.attention_softcap}
        if past is not None:
            out = attend_to_cache(q, k, v, visible=sight.visible, **settings)
        elif branches is not None:
            out = attend_in_branches(q, k, v, branches, sights=sight, **settings)
        else:
            out = attend_to_rows(q, k, v, sight=of_last(sight, last), **settings)
        output = nn.Dense(
            x.shape[-1],
            use_bias=c.output_biases,
            dtype=c.dtype,
            dot_general=dot_general,
            kernel_init=self.output_init,
            name="output",
        )
        return output(out.swapaxes(1, 2).reshape(*asking.shape[:2], -1)), (k, v)

    def _project(self, name, x, heads):
        c = self.config
        dense = nn.Dense(
            heads * c.head_width, c.qkv_biases, dtype=c.dtype, dot_general=dot_general, name=name
        )
        return dense(x).reshape(*x.shape[:2], heads, c.head_width).swapaxes(1, 2)

    def _norm(self, name):
        c = self.config
        return make_norm("rms", epsilon=c.norm_epsilon, dtype=c.dtype, name=name)


def _write(buffer, new, column):
    return jax.lax.dynamic_update_slice_in_dim(buffer, new.astype(buffer.dtype), column, axis=2)
