"""The trunk: embedding, pre-norm blocks and final norm, unrolled or scanned over layers."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxalign.batches.tokens import pytree
from jaxalign.models.architecture import TransformerConfig
from jaxalign.models.attention import Attention, LayerCache, Masks
from jaxalign.models.kernels import AttentionMask
from jaxalign.models.layers import FeedForward, drop, fold, last_columns, make_norm
from jaxalign.models.rope import Rotation
from jaxalign.models.shared_prefix import SharedPrefix

# Of a layer: its index, its window (0: none), and its cache or None.
Layer = tuple[int | jax.Array, int | jax.Array, LayerCache | None]
Buffers = tuple[jax.Array, jax.Array]  # keys and values of a layer
DEEP = 8  # layers from which on Python's way through all of them takes long


@pytree
class Context:
    """Inputs of every block of a trunk beside the hidden states.

    positions: `[B, T]` int32, real tokens before each token.
    mask: attention mask; with a shared prefix two, from `shared_prefix_masks`.
    distances: `[B, T, S]` int32, how many tokens a key lies back; None where no layer has a window.
      With a shared prefix two arrays, as of the masks.
    rotation, window_rotation: cosine and sine of the rotary angles, or None; the second for layers
      with a window.
    keys: `[B]` typed keys for dropout, `[B, S]` with segments; None without dropout.
    segments: `[B, T]` int32, which of the S texts of its row a token belongs to; None: one a row.
    shared_prefix: layout of rows with a shared prefix and its continuations; None for other rows.
    last: only the last columns leave the trunk, so many of them; None: all.
    """

    positions: jax.Array
    mask: Masks
    distances: jax.Array | tuple[jax.Array, jax.Array] | None
    rotation: Rotation | None
    window_rotation: Rotation | None
    keys: jax.Array | None
    segments: jax.Array | None
    shared_prefix: SharedPrefix | None = dataclasses.field(metadata={"static": True})
    last: int | None = dataclasses.field(metadata={"static": True})

    def within(self, window: int | jax.Array) -> tuple[Masks, Rotation | None]:
        """Attention mask and rotary angles of a layer with that window (0: none)."""
        if self.distances is None:
            return self.mask, self.rotation
        windowed = jnp.asarray(window) > 0

        def near(mask: AttentionMask, distances: jax.Array) -> AttentionMask:
            visible = mask.visible & (~windowed | (distances < window))
            return AttentionMask(visible=visible, segment_ids=None)

        mask = jax.tree.map(
            near, self.mask, self.distances, is_leaf=lambda part: isinstance(part, AttentionMask)
        )
        if self.rotation is None:
            return mask, None
        pairs = zip(self.window_rotation or (), self.rotation, strict=True)
        cos, sin = (jnp.where(windowed, short, long) for short, long in pairs)
        return mask, (cos, sin)

    def drop(self, x: jax.Array, rate: float, site: int | jax.Array) -> jax.Array:
        """Dropout with the noise of that site, an index that no other dropout layer has."""
        return drop(x, rate, fold(self.keys, site), self.segments)


class Block(nn.Module):
    """`x + attention(norm(x))`, then `x + feed_forward(norm(x))` (pre-norm)."""

    config: TransformerConfig

    @nn.compact
    def __call__(
        self, x: jax.Array, scanned: Layer, context: Context
    ) -> tuple[jax.Array, Buffers | None]:
        """`x [B, T, D]` -> `[B, context.last, D]`, and keys and values where there is a cache."""
        config, (layer, window, past) = self.config, scanned
        mask, rotation = context.within(window)
        attention = Attention(config, self._output_init(), name="attention")
        last = context.last
        out, buffers = attention(
            self._norm("attention_norm")(x),
            rotation=rotation,
            mask=mask,
            shared_prefix=context.shared_prefix,
            past=past,
            layer=layer,
            last=last,
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

    def _norm(self, name: str) -> nn.Module:
        c = self.config
        return make_norm(c.norm, epsilon=c.norm_epsilon, dtype=c.dtype, name=name)

    def _output_init(self) -> nn.initializers.Initializer:
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

    def __call__(
        self, tokens: jax.Array, context: Context, past: list[LayerCache] | None
    ) -> tuple[jax.Array, list[Buffers | None]]:
        """Hidden states after the final norm, and keys and values of each layer.

        The last block and what follows leave out all but the last `context.last` columns: they
        are 0.

        Args:
          tokens: `[B, T]` ids, padding filled.
          context: see there.
          past: the cache of each layer, or None.

        Returns:
          `[B, T, D]`, and a pair of `[B, K, S, H]` a layer (None without a cache).
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
            apply = self._applied_block()
            for layer in range(c.layers):
                scanned = layer, windows[layer], None if past is None else past[layer]
                x, buffer = apply(x, scanned, context if layer == c.layers - 1 else whole)
                buffers.append(buffer)
        missing = tokens.shape[1] - x.shape[1]
        return jnp.pad(self.norm(x), ((0, 0), (missing, 0), (0, 0))), buffers

    def _applied_block(self) -> Callable[..., tuple[jax.Array, Buffers | None]]:
        """Application of a block of the unrolled trunk: `(x, layer, context)`.

        Python runs through a block once for all layers of a deep network that compute the same, and
        not once a layer; what is compiled is the same.
        """
        c = self.config
        differ = c.dropout > 0 or c.attention_scale_by_layer
        if self.is_initializing() or differ or c.layers < DEEP:
            return lambda x, scanned, context: self.layers[scanned[0]](x, scanned, context)
        block = self.layers[0].clone(parent=None)

        @functools.partial(jax.jit, static_argnames="window")
        def applied(variables: Any, x: jax.Array, past: Any, context: Context, *, window: int):
            return block.apply(variables, x, (0, window, past), context)

        def apply(
            x: jax.Array, scanned: tuple[int, int, LayerCache | None], context: Context
        ) -> tuple[jax.Array, Buffers | None]:
            layer, window, past = scanned
            return applied(self.layers[layer].variables, x, past, context, window=window)  # pyright: ignore[reportReturnType]

        return apply


def _scanned(block: Any, layers: int) -> Any:
    """The block as a module that loops over a stack of its parameters."""
    return nn.scan(
        block,
        variable_axes={"params": 0, "adapters": 0},
        split_rngs={"params": True},
        in_axes=(0, nn.broadcast),  # pyright: ignore[reportArgumentType]
        length=layers,
    )
