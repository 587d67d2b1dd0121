"""Tiny Llama and GPT-2 models: logits, loss and gradients are those of Hugging Face."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxalign.logprobs import token_logps
from jaxalign.models.transformer import Transformer, TransformerConfig

HF = pathlib.Path(__file__).parent / "data" / "hf"


def llama_weights(weights, layers):
    """Hugging Face's Llama names -> (our path, transposed?)."""
    parts = {"self_attn.q_proj": "attention/query", "self_attn.k_proj": "attention/key"}
    parts |= {"self_attn.v_proj": "attention/value", "self_attn.o_proj": "attention/output"}
    parts |= {f"mlp.{name}_proj": f"feed_forward/{name}" for name in ("up", "gate", "down")}
    tree = {"trunk": {"embedding": weights["model.embed_tokens.weight"]}}
    tree["trunk"]["norm"] = {"scale": weights["model.norm.weight"]}
    tree["unembedding"] = weights["lm_head.weight"].T
    for i in range(layers):
        block, prefix = {"attention": {}, "feed_forward": {}}, f"model.layers.{i}."
        for theirs, ours in parts.items():
            part, name = ours.split("/")
            block[part][name] = {"kernel": weights[f"{prefix}{theirs}.weight"].T}
        block["attention_norm"] = {"scale": weights[f"{prefix}input_layernorm.weight"]}
        block["feed_forward_norm"] = {"scale": weights[f"{prefix}post_attention_layernorm.weight"]}
        tree["trunk"][f"layers_{i}"] = block
    return tree


def gpt2_weights(weights, layers):
    weights = {name.removeprefix("transformer."): x for name, x in weights.items()}

    def pair(name, kernel="kernel"):
        return {kernel: weights[f"{name}.weight"], "bias": weights[f"{name}.bias"]}

    trunk = {"embedding": weights["wte.weight"], "positions": weights["wpe.weight"]}
    trunk["norm"] = pair("ln_f", "scale")
    for i in range(layers):
        joint = pair(f"h.{i}.attn.c_attn")
        kernels = zip(*(np.split(joint[x], 3, axis=-1) for x in ("kernel", "bias")), strict=True)
        names = ("query", "key", "value")
        attention = {n: {"kernel": k, "bias": b} for n, (k, b) in zip(names, kernels, strict=True)}
        trunk[f"layers_{i}"] = {
            "attention": attention | {"output": pair(f"h.{i}.attn.c_proj")},
            "attention_norm": pair(f"h.{i}.ln_1", "scale"),
            "feed_forward": {"up": pair(f"h.{i}.mlp.c_fc"), "down": pair(f"h.{i}.mlp.c_proj")},
            "feed_forward_norm": pair(f"h.{i}.ln_2", "scale"),
        }
    return {"trunk": trunk}


def hugging_face(name):
    settings = json.loads((HF / name / "config.json").read_text())
    weights = load_file(HF / name / "model.safetensors")
    common = {"vocab_size": settings["vocab_size"], "norm_epsilon": 1e-5, "layers": 2, "heads": 4}
    if name == "llama":
        config = TransformerConfig(
            **common, max_length=64, width=48, kv_heads=2, mlp_width=96, tie_embeddings=False
        )
        return config, llama_weights(weights, 2)
    config = TransformerConfig(
        **common,
        max_length=64,
        width=48,
        kv_heads=4,
        mlp_width=192,
        norm="layer",
        positions="learned",
        activation="gelu",
        qkv_biases=True,
        output_biases=True,
        mlp_biases=True,
    )
    return config, gpt2_weights(weights, 2)


@functools.partial(jax.jit, static_argnums=0)
def next_token_loss(config, params, tokens, mask):
    """Mean cross-entropy of all next tokens with its gradient, and the logits."""

    def loss(params):
        logits = Transformer(config).apply({"params": params}, tokens, mask).logits
        predicted = mask & (jnp.arange(mask.shape[1]) > 0)[None]
        logps = jnp.where(predicted, token_logps(logits, tokens), 0)
        return -logps.sum() / predicted.sum(), logits

    return jax.value_and_grad(loss, has_aux=True)(params)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_logits_loss_and_gradient_agree_with_hugging_face(name):
    config, params = hugging_face(name)
    expected = np.load(HF / name / "expected.npz")

    def computed(side):
        return next_token_loss(config, params, expected[f"{side}_ids"], expected[f"{side}_mask"])

    for side in ("left", "right"):
        (loss, logits), grads = computed(side)
        error = np.abs(logits - expected[f"{side}_logits"])[expected[f"{side}_mask"]].max()
        assert error <= 1e-4
    np.testing.assert_allclose(loss, expected["loss"], rtol=1e-5)
    squares = sum(float(np.sum(np.square(x))) for x in jax.tree.leaves(grads))
    np.testing.assert_allclose(squares, np.sum(expected["grad_norms"] ** 2), rtol=1e-4)
    norms = dict(zip(expected["grad_names"].tolist(), expected["grad_norms"], strict=True))
    embedding = next(n for name, n in norms.items() if "embed_tokens" in name or "wte" in name)
    ours = np.linalg.norm(grads["trunk"]["embedding"])
    np.testing.assert_allclose(ours, embedding, rtol=1e-4)
