"""The trunk: embedding, pre-norm blocks and final norm, unrolled or scanned over layers."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxalign.batches import pytree
from jaxalign.models.architecture import TransformerConfig
from jaxalign.models.attention import Attention
from jaxalign.models.layers import FeedForward, drop, fold, make_norm


@pytree
class Context:
    """What every block of a trunk reads.

    positions: `[B, T]`; visible: `[B, T, S]`; keys: `[B]` or None.
    rotation: cosine and sine of the rotary angles, or None.
    """

    positions: jax.Array
    visible: jax.Array
    rotation: tuple[jax.Array, jax.Array] | None
    keys: jax.Array | None


class Block(nn.Module):
    """`x + attention(norm(x))`, then `x + feed_forward(norm(x))` (pre-norm)."""

    config: TransformerConfig

    @nn.compact
    def __call__(self, x, scanned, context):
        """`x [B, T, D]`, (layer number, its past or None) -> `x`, its (keys, values) or None."""
        config, (layer, past) = self.config, scanned
        out, buffers = self._attention()(
            self._norm("attention_norm")(x), context.rotation, context.visible, past
        )
        x += drop(out, config.dropout, fold(context.keys, 2 * layer))
        out = self._feed_forward()(self._norm("feed_forward_norm")(x))
        x += drop(out, config.dropout, fold(context.keys, 2 * layer + 1))
        return x, None if past is None else buffers

    def _attention(self):
        c = self.config
        sizes = (c.heads, c.kv_heads, c.head_width, c.biases)
        return Attention(*sizes, self._output_init(), c.dtype, name="attention")

    def _feed_forward(self):
        c = self.config
        sizes = (c.mlp_width, c.activation, c.biases)
        return FeedForward(*sizes, self._output_init(), c.dtype, name="feed_forward")

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
        """`tokens [B, T]` with padding filled -> `hidden [B, T, D]` and each layer's buffers."""
        c = self.config
        x = self.embedding[tokens]
        if c.positions == "learned":
            x += self.position_embedding[context.positions]
        x = drop(x.astype(c.dtype), c.dropout, fold(context.keys, 2 * c.layers))
        if c.scan_layers:
            x, _ = self.stack(x, (jnp.arange(c.layers), None), context)
            return self.norm(x), []
        buffers = []
        for layer, block in enumerate(self.layers):
            x, buffer = block(x, (layer, None if past is None else past[layer]), context)
            buffers.append(buffer)
        return self.norm(x), buffers


def _scanned(block, layers):
    return nn.scan(
        block,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=(0, nn.broadcast),  # pyright: ignore[reportArgumentType]
        length=layers,
    )
