"""Parts of a block besides attention: norms, feed-forward layers, dropout, padding, positions."""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxalign.models.architecture import TransformerConfig
from jaxalign.numerics.matmul import dot_general


def filled(tokens: jax.Array, mask: jax.Array, before: jax.Array) -> jax.Array:
    """Tokens in which every padding position repeats the last real token before it.

    Such a position has the same query as the real one (same token, same position, same visible
    keys), so it carries the same hidden state: what follows padding continues from the last real
    token, and the last column is always the end of the text. Attention never reads it as a key.

    Args:
      tokens: `[B, T]` ids, anything where `mask` is false.
      mask: `[B, T]` bool, true on real tokens.
      before: `[B]` the last real token before column 0.

    Returns:
      `[B, T]` ids.
    """
    columns = jnp.arange(1, tokens.shape[1] + 1, dtype=jnp.int32)
    latest = jax.lax.cummax(jnp.where(mask, columns[None], 0), axis=1)
    known = jnp.concatenate((before[:, None].astype(tokens.dtype), tokens), axis=1)
    return jnp.take_along_axis(known, latest, axis=1)


def positions_of(mask: jax.Array, count: jax.Array) -> jax.Array:
    """Positions, `[B, T]` int32: real tokens before each, with `count [B]` of earlier calls."""
    return jnp.maximum(count[:, None] + jnp.cumsum(mask, axis=1, dtype=jnp.int32) - 1, 0)


def last_columns(x: jax.Array, last: int | None, *, axis: int) -> jax.Array:
    """The last columns along an axis, `last` of them; None: all."""
    length = x.shape[axis]
    return x if last is None else jax.lax.slice_in_dim(x, length - last, length, axis=axis)


def drop(
    x: jax.Array, rate: float, keys: jax.Array | None, segments: jax.Array | None = None
) -> jax.Array:
    """Dropout of an example's features, with one mask for all its positions.

      x kept / (1 - rate),  kept ~ Bernoulli(1 - rate), one draw a feature of an example

    The noise belongs to the example, wherever padding
    stands, and costs next to nothing.

    Args:
      x: `[B, T, D]`.
      rate: share of the features that is dropped, in [0, 1).
      keys: `[B]` typed keys, one an example, or None for no dropout; `[B, S]` with segments.
      segments: `[B, T]` int32, which of the S examples in its row a position belongs to.

    Returns:
      `[B, T, D]`.

    Source: Gal and Ghahramani 2016, https://arxiv.org/abs/1512.05287, section 4 (one mask a
    sequence).
    """
    if keys is None or rate == 0:
        return x
    chex.assert_rank(keys, 1 if segments is None else 2)
    draw = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[2:]))
    kept = draw(keys.reshape(-1)).reshape(x.shape[0], -1, x.shape[2])
    if segments is not None:
        kept = jnp.take_along_axis(kept, segments[..., None], axis=1)
    return jnp.where(kept, x / (1 - rate), 0)


def fold(keys: jax.Array | None, data: jax.Array | int) -> jax.Array | None:
    """Keys with data folded into each (`jax.random.fold_in`); None stays None."""
    if keys is None:
        return None
    return jax.vmap(jax.random.fold_in, (0, None))(keys.reshape(-1), data).reshape(keys.shape)


def make_norm(kind: str, *, epsilon: float, dtype: jnp.dtype, name: str) -> nn.Module:
    """Norm layer: RMS (https://arxiv.org/abs/1910.07467, Eq. 4) or layer (https://arxiv.org/abs/1607.06450)."""
    if kind == "rms":
        return nn.RMSNorm(epsilon=epsilon, dtype=dtype, name=name)
    return nn.LayerNorm(epsilon=epsilon, dtype=dtype, use_fast_variance=False, name=name)


# name: the function, and whether it is a gate of a second projection
ACTIVATIONS = {
    "swiglu": (nn.silu, True),
    "geglu": (functools.partial(nn.gelu, approximate=True), True),
    "geglu_exact": (functools.partial(nn.gelu, approximate=False), True),
    "reglu": (nn.relu, True),
    "gelu": (functools.partial(nn.gelu, approximate=True), False),
    "gelu_exact": (functools.partial(nn.gelu, approximate=False), False),
    "relu": (nn.relu, False),
    "silu": (nn.silu, False),
    "tanh": (nn.tanh, False),
}


class FeedForward(nn.Module):
    """Feed-forward layer, gated or plain.

      down(f(gate(x)) up(x)),  f = silu (swiglu) or gelu (geglu);  plain: down(f(up(x)))

    The gelu is its tanh form but where the name says exact.

    Source: Shazeer 2020, https://arxiv.org/abs/2002.05202, Eq. 6; Hendrycks and Gimpel 2016,
    https://arxiv.org/abs/1606.08415, section 2.
    """

    config: TransformerConfig
    output_init: nn.initializers.Initializer

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, T, D]` -> `[B, T, D]`."""
        c = self.config
        activation, gated = ACTIVATIONS[c.activation]
        up = nn.Dense(c.mlp_width, c.mlp_biases, dtype=c.dtype, dot_general=dot_general, name="up")(
            x
        )
        if gated:
            gate = nn.Dense(
                c.mlp_width, c.mlp_biases, dtype=c.dtype, dot_general=dot_general, name="gate"
            )(x)
            up = activation(gate) * up
        else:
            up = activation(up)
        output = nn.Dense(
            x.shape[-1],
            c.mlp_biases,
            dtype=c.dtype,
            dot_general=dot_general,
            kernel_init=self.output_init,
            name="down",
        )
        return output(up)
