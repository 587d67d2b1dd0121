"""Small models and rows that several test files train on."""

import functools

import jax
import numpy as np

from jaxalign.config.model import ModelConfig
from jaxalign.data.chat import TokenRow, token_row
from jaxalign.data.tokenizer_training import train_bpe
from jaxalign.models.rope import RopeScaling
from jaxalign.models.transformer import TransformerConfig
from jaxalign.recipes.text_models import TextModel, new_text_model

LLAMA = TransformerConfig(
    vocab_size=23,
    max_length=16,
    width=16,
    layers=2,
    heads=4,
    kv_heads=2,
    mlp_width=24,
)
# What of the architecture depends on distances between tokens, and what bounds logits.
GEMMA = {
    "post_norms": True,
    "qk_norm": True,
    "windows": (3, 0),
    "attention_softcap": 5.0,
    "logit_softcap": 3.0,
    "window_rope_theta": 500.0,
    "rope_scaling": RopeScaling(kind="linear", factor=2.0),
}
# prompt, chosen, rejected
PAIRS = [([1, 2], [3, 4, 5], [6, 7]), ([1, 3], [8, 9], [4, 6, 2]), ([1, 7], [5], [3, 9])]


@functools.cache
def tiny_policy(max_length: int) -> TextModel:
    """A new policy of one layer."""
    tokenizer = train_bpe(["the film is good"], 270)
    config = ModelConfig(width=16, layers=1, heads=2, dropout=0.0)
    return new_text_model(config, tokenizer, jax.random.key(0), max_length=max_length)


def random_parameters(model) -> dict:
    """Random numbers for all parameters, so that gains, biases and zero weights matter."""
    tokens = np.zeros((1, 2), np.int32)
    init = functools.partial(model.init, jax.random.key(0))
    shapes = jax.eval_shape(init, tokens, tokens == 0)["params"]
    rng = np.random.default_rng(0)

    def random(path, x):
        if path[-1].key == "spelling":  # characters 97 to 99, then nothing
            real = np.arange(x.shape[1]) < rng.integers(0, x.shape[1] + 1, (len(x), 1))
            return np.where(real, rng.integers(97, 100, x.shape), 0).astype(np.float32)
        center = 1.0 if path[-1].key == "scale" else 0.0
        return rng.normal(center, 0.3, x.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(random, shapes)


def side_rows(pairs, side: int) -> list[TokenRow]:
    """The prompts with their chosen (0) or rejected (1) responses."""
    return [token_row((prompt, False), (pair[side], True)) for prompt, *pair in pairs]
