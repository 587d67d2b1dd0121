"""Causal grouped-query attention with rotary positions and a key-value cache."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxalign.batches import pytree

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


def rotary(positions: jax.Array, head_width: int, theta: float) -> tuple[jax.Array, jax.Array]:
    """Cosine and sine of the rotary angles, `angle_i = position * theta ** (-2 i / H)`.

    Args:
      positions: `[B, T]` int32, counted from 0.
      head_width: H, even.
      theta: base of the wavelengths.

    Returns:
      Two `[B, 1, T, H / 2]` float32 arrays.

    Source: Su et al. 2021, https://arxiv.org/abs/2104.09864, Eq. 15.
    """
    frequencies = theta ** (-jnp.arange(0, head_width, 2, dtype=jnp.float32) / head_width)
    angles = positions[:, None, :, None] * frequencies[None, None, None, :]
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x: jax.Array, rotation: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Turn the pairs (x_i, x_{i + H/2}) of `x [B, N, T, H]` by the rotary angles."""
    cos, sin = rotation
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate((first * cos - second * sin, second * cos + first * sin), axis=-1)
    return turned.astype(x.dtype)


def visible_keys(mask: jax.Array, offset: jax.Array | int, queries: int) -> jax.Array:
    """`[B, queries, S]`: query t, in column offset + t, sees real tokens up to that column."""
    columns = jnp.arange(mask.shape[1], dtype=jnp.int32)
    ages = offset + jnp.arange(queries, dtype=jnp.int32)[:, None] - columns[None, :]
    return mask[:, None, :] & (ages >= 0)[None]


def attend(q: jax.Array, k: jax.Array, v: jax.Array, visible: jax.Array) -> jax.Array:
    """Softmax attention in which groups of query heads share a key-value head.

      out = softmax(q k^T / sqrt(H)) v

    Args:
      q: `[B, N, T, H]`; head n reads key-value head n // (N / K).
      k, v: `[B, K, S, H]`.
      visible: `[B, T, S]` bool.

    Returns:
      `[B, N, T, H]`.

    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, Eq. 1; Ainslie et al. 2023,
    https://arxiv.org/abs/2305.13245.
    """
    batch, heads, length, width = q.shape
    groups = heads // k.shape[1]
    q = q.reshape(batch, k.shape[1], groups * length, width) * width**-0.5
    logits = jnp.einsum("bkth,bksh->bkts", q, k, preferred_element_type=jnp.float32)
    logits = logits.reshape(batch, heads, length, k.shape[2])
    weights = jax.nn.softmax(jnp.where(visible[:, None], logits, MASKED)).astype(v.dtype)
    weights = weights.reshape(batch, k.shape[1], groups * length, k.shape[2])
    return jnp.einsum("bkts,bksh->bkth", weights, v).reshape(batch, heads, length, width)


class Attention(nn.Module):
    """Self-attention of `heads` query heads over `kv_heads` key-value heads."""

    heads: int
    kv_heads: int
    head_width: int
    biases: bool
    output_init: nn.initializers.Initializer
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x, rotation, visible, past):
        """Attend over this call's columns, or over `past` with them written into it.

        Args:
          x: `[B, T, D]`.
          rotation: cosine and sine of `rotary`, or None.
          visible: `[B, T, S]` bool.
          past: (keys, values, column to write at) of the cache, or None (then S = T).

        Returns:
          `[B, T, D]`, and the `[B, K, S, H]` keys and values that were attended to.
        """
        q, k = self._project("query", x, self.heads), self._project("key", x, self.kv_heads)
        v = self._project("value", x, self.kv_heads)
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        if past is not None:
            k, v = (
                _write(buffer, new, past[2]) for buffer, new in zip(past[:2], (k, v), strict=True)
            )
        out = attend(q, k, v, visible).swapaxes(1, 2).reshape(x.shape)
        output = nn.Dense(
            x.shape[-1],
            use_bias=self.biases,
            dtype=self.dtype,
            kernel_init=self.output_init,
            name="output",
        )
        return output(out), (k, v)

    def _project(self, name, x, heads):
        dense = nn.Dense(heads * self.head_width, self.biases, dtype=self.dtype, name=name)
        return dense(x).reshape(*x.shape[:2], heads, self.head_width).swapaxes(1, 2)


def _write(buffer, new, column):
    return jax.lax.dynamic_update_slice_in_dim(buffer, new.astype(buffer.dtype), column, axis=2)
