"""The same model in Tunix."""

import jax.numpy as jnp
from flax import nnx
from tunix.models.llama3 import model as llama3

from benchmarks.speed.work import Size


def causal(size: Size, seed: int = 0) -> llama3.Llama3:
    config = llama3.ModelConfig(
        num_layers=size.layers,
        vocab_size=size.vocabulary,
        embed_dim=size.width,
        hidden_dim=size.mlp_width,
        num_heads=size.heads,
        head_dim=size.head_width,
        num_kv_heads=size.kv_heads,
        rope_theta=10_000,
        norm_eps=1e-5,
        weight_tying=True,
    )
    model = llama3.Llama3(config, rngs=nnx.Rngs(seed))
    state = nnx.state(model, nnx.Param)
    nnx.update(model, nnx.map_state(lambda path, x: x.astype(jnp.float32), state))
    return model
