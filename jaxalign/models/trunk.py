"""The trunk: embedding, pre-norm blocks and final norm, unrolled or scanned over layers."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxalign.batches.tokens import pytree
from jaxalign.models.architecture import TransformerConfig
from jaxalign.models.attention import Attention
from jaxalign.models.branches import Branches
from jaxalign.models.kernels import Sight
from jaxalign.models.layers import FeedForward, drop, fold, last_columns, make_norm


@pytree
class Context:
    """What every block of a trunk reads.

    positions: `[B, T]`; sight: what its columns see.
    keys, segments: `[B]` and None, or one key for each text of a row and `[B, T]` which of them a
      token belongs to; keys are None without dropout.
    distances: `[B, T, S]` int32, how many tokens a key lies back; None where no layer has a window.
    branches: where continuations of one beginning stand; None where a row is no such thing. With
      them, there are two sights and two arrays of distances (see `sights_in_branches`).
    rotation, window_rotation: cosine and sine of the rotary angles, or None; the second for layers
      with a window.
    last: only so many columns at the end leave the trunk; None: all.
    """

    positions: jax.Array
    sight: Sight | tuple[Sight, Sight]
    distances: jax.Array | tuple[jax.Array, jax.Array] | None
    rotation: tuple[jax.Array, jax.Array] | None
    window_rotation: tuple[jax.Array, jax.Array] | None
    keys: jax.Array | None
    segments: jax.Array | None
    branches: Branches | None = dataclasses.field(metadata={"static": True})
    last: int | None = dataclasses.field(metadata={"static": True})

    def within(self, window):
        """What a layer with that window (0: none) sees, and how it turns queries and keys."""
        if self.distances is None:
            return self.sight, self.rotation
        windowed = jnp.asarray(window) > 0

        def near(sight, distances):
            visible = sight.visible & (~windowed | (distances < window))
            return Sight(visible=visible, numbers=None)

        sight = jax.tree.map(
            near, self.sight, self.distances, is_leaf=lambda part: isinstance(part, Sight)
        )
        if self.rotation is None:
            return sight, None
        pairs = zip(self.window_rotation or (), self.rotation, strict=True)
        cos, sin = (jnp.where(windowed, near, far) for near, far in pairs)
        return sight, (cos, sin)

    def drop(self, x, rate, site):
        """Dropout with the noise of that site."""
        return drop(x, rate, fold(self.keys, site), self.segments)


class Block(nn.Module):
    """`x + attention(norm(x))`, then `x + feed_forward(norm(x))` (pre-norm)."""

    config: TransformerConfig

    @nn.compact
    def __call__(self, x, scanned, context):
        """`x [B, T, D]`, (layer, its window, its past) -> `x [B, context.last, D]`, its (keys,
        values) or None.
        """
        config, (layer, window, past) = self.config, scanned
        sight, rotation = context.within(window)
        attention = Attention(config, self._output_init(), name="attention")
        normed = self._norm("attention_norm")(x)
        last = context.last
        out, buffers = attention(
            normed, rotation, sight, context.branches, past, layer=layer, last=last
        )
        if config.post_norms:
            out = self._norm("attention_out_norm")(out)
        x = last_columns(x, last, axis=1) + context.drop(out, config.dropout, 2 * layer)
        feed_forward = FeedForward(config, self._output_init(), name="feed_forward")
        out = feed_forward(self._norm("feed_forward_norm")(x))
        if config.post_norms:
            out = self._norm("feed_forward_out_norm")(out)
        x += context.drop(out, config.dropout, 2 * layer + 1)
        return x, None if past is None else buffers

    def _norm(self, name):
        c = self.config
        return make_norm(c.norm, epsilon=c.norm_epsilon, dtype=c.dtype, name=name)

    def _output_init(self):
        # 2 * layers branches add up on the residual stream: GPT-2's scaling.
        return nn.initializers.variance_scaling(0.5 / self.config.layers, "fan_in", "normal")


class Trunk(nn.Module):
    """Embedding, blocks and final norm."""

    config: TransformerConfig

    def setup(self):
        c, init = self.config, nn.initializers.normal(0.02)
        self.embedding = self.param("embedding", init, (c.vocab_size, c.width))
        if c.positions == "learned":
            self.position_embedding = self.param("positions", init, (c.max_length, c.width))
        block = nn.remat(Block, prevent_cse=not c.scan_layers) if c.remat else Block
        if c.scan_layers:
            self.stack = _scanned(block, c.layers)(c)
        else:
            self.layers = [block(c) for _ in range(c.layers)]
        self.norm = make_norm(c.norm, epsilon=c.norm_epsilon, dtype=c.dtype, name="norm")

    def __call__(self, tokens, context, past):
        """`tokens [B, T]` with padding filled -> `hidden [B, T, D]` and each layer's buffers.

        The last block and what follows leave out all but the last `context.last` columns: they
        are 0.
        """
        c = self.config
        x = self.embedding[tokens] * c.embedding_scale
        if c.positions == "learned":
            x += self.position_embedding[context.positions]
        x = context.drop(x.astype(c.dtype), c.dropout, 2 * c.layers)
        windows = c.windows or (0,) * c.layers
        whole, buffers = dataclasses.replace(context, last=None), []
        if c.scan_layers:  # the same for all layers, so the columns are left out behind them
            x, _ = self.stack(x, (jnp.arange(c.layers), jnp.array(windows), None), whole)
            x = last_columns(x, context.last, axis=1)
        else:
            for layer, block in enumerate(self.layers):
                scanned = layer, windows[layer], None if past is None else past[layer]
                x, buffer = block(x, scanned, context if layer == c.layers - 1 else whole)
                buffers.append(buffer)
        missing = tokens.shape[1] - x.shape[1]
        return jnp.pad(self.norm(x), ((0, 0), (missing, 0), (0, 0))), buffers


def _scanned(block, layers):
    return nn.scan(
        block,
        variable_axes={"params": 0, "adapters": 0},
        split_rngs={"params": True},
        in_axes=(0, nn.broadcast),  # pyright: ignore[reportArgumentType]
        length=layers,
    )
