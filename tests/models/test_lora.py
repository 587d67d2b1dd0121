"""Adapters against the matrices that they stand for, in every form of the transformer."""

import dataclasses
import functools
import math
import zlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxalign.batches.tokens import TokenBatch
from jaxalign.config.lora import LoraConfig
from jaxalign.errors import UserError
from jaxalign.models.lora import (
    ADAPTERS,
    Adapted,
    adapted_layers,
    adapter_scale,
    merged,
    module_of,
    new_adapters,
    split,
    with_sites,
)
from jaxalign.models.quantised import quantised, to_int8, weights_of
from jaxalign.models.transformer import Transformer, TransformerConfig, unrolled
from jaxalign.sampling import sample
from tests.tiny_models import LLAMA

PLAIN = dataclasses.replace(LLAMA, qkv_biases=True)
SCANNED = dataclasses.replace(PLAIN, scan_layers=True, remat=True)
ALL = LoraConfig().targets
SCALE = 0.7
TOKENS = np.random.default_rng(0).integers(0, 23, (3, 7)).astype(np.int32)
MASK = np.ones_like(TOKENS, bool)
KEYS = jax.random.split(jax.random.key(5), 3)


@functools.cache
def params_of(config):
    """Random numbers for all parameters: biases and gains matter."""
    init = jax.eval_shape(Transformer(config).init, jax.random.key(0), TOKENS, MASK)["params"]
    rng = np.random.default_rng(0)

    def random(path, x):
        return rng.normal(float(path[-1].key == "scale"), 0.3, x.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(random, init)


def random_adapters(config, patterns=ALL, rank=3):
    fresh = new_adapters(params_of(config), config, patterns, rank=rank, key=jax.random.key(2))
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: rng.normal(0, 0.2, x.shape).astype(np.float32), fresh)


@functools.partial(jax.jit, static_argnums=0)
def logits(model, params, tokens=TOKENS, mask=MASK, keys=None):
    return model.apply({"params": params}, tokens, mask, keys=keys).logits


class Layer(nn.Module):
    dtype: Any

    @nn.compact
    def __call__(self, x):
        return nn.Dense(4, dtype=self.dtype, param_dtype=self.dtype, name="query")(x)


class Trunk(nn.Module):
    dtype: Any

    @nn.compact
    def __call__(self, x):
        return Layer(self.dtype, name="layers_0")(x)


class OneLayer(nn.Module):
    """A dense layer where the transformer would have one, in any precision."""

    config: TransformerConfig = PLAIN
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, *, keys=None):
        return Trunk(self.dtype, name="trunk")(x)


def one_layer(a, b, w, bias):
    tree = {"layers_0": {"query": {"kernel": w, "bias": bias}}}
    return {"trunk": tree, ADAPTERS: {"trunk": {"layers_0": {"query": {"a": a, "b": b}}}}}


@pytest.mark.slow
def test_gradients_are_those_through_the_sum_of_matrices(x64):
    """y = x (W + s A B) + bias and L = sum(c y): dL/dA = s G B^T, dL/dB = s A^T G, G = x^T c."""
    rng = np.random.default_rng(0)
    shapes = {"a": (5, 2), "b": (2, 4), "w": (5, 4), "bias": (4,)}
    given = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    x, c = rng.normal(size=(3, 6, 5)), rng.normal(size=(3, 6, 4))
    model = Adapted(transformer=OneLayer(dtype=jnp.float64), scale=SCALE)
    y = model.apply({"params": one_layer(**given)}, x)
    effective = given["w"] + SCALE * given["a"] @ given["b"]
    np.testing.assert_allclose(y, x @ effective + given["bias"], atol=1e-13)

    def loss(ab):
        return jnp.sum(c * model.apply({"params": one_layer(**given | ab)}, x))

    grads = jax.grad(loss)({"a": given["a"], "b": given["b"]})
    outer = np.einsum("nti,nto->io", x, c)
    np.testing.assert_allclose(grads["a"], SCALE * outer @ given["b"].T, atol=1e-12)
    np.testing.assert_allclose(grads["b"], SCALE * given["a"].T @ outer, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("config", [PLAIN, SCANNED], ids=["plain", "scanned"])
def test_the_whole_network_is_the_merged_one(config):
    """Logits, and by the chain rule gradients: dL/dA = s dL/dW B^T and dL/dB = s A^T dL/dW."""
    model = Adapted(transformer=Transformer(config), scale=SCALE)
    params = params_of(config) | {ADAPTERS: random_adapters(config)}
    whole, weights = merged(model, params)
    assert whole == Transformer(config)
    expected = logits(whole, weights)
    # about 2 layers of 7 products with rounding errors of 1e-7 of numbers up to 10
    np.testing.assert_allclose(logits(model, params), expected, atol=2e-5)
    assert np.abs(logits(model, params_of(config)) - expected).max() > 0.3
    trained, frozen = split(model, params)
    assert trained.keys() == {ADAPTERS} and frozen is not None and frozen.keys() == {"trunk"}

    def loss(model, params):
        return jnp.sum(jnp.sin(model.apply({"params": params}, TOKENS, MASK).logits))

    adapter_grads = jax.jit(jax.grad(lambda t: loss(model, {**frozen, **t})))(trained)[ADAPTERS]
    weight_grads = jax.jit(jax.grad(lambda p: loss(whole, p)))(weights)
    paths = adapted_layers(params)
    assert len(paths) == (7 if config.scan_layers else 14)
    for path in paths:
        adapter, grads = (module_of(tree, path) for tree in (params[ADAPTERS], adapter_grads))
        outer = SCALE * np.asarray(module_of(weight_grads, path)["kernel"], float)
        size = np.abs(outer).max()
        transposed = {name: np.swapaxes(adapter[name], -1, -2) for name in "ab"}
        assert size > 1e-2
        np.testing.assert_allclose(grads["a"], outer @ transposed["b"], atol=2e-5 * size + 1e-5)
        np.testing.assert_allclose(grads["b"], transposed["a"] @ outer, atol=2e-5 * size + 1e-5)


@pytest.mark.slow
def test_new_adapters_change_no_bit_and_start_as_in_peft():
    found = {}
    for config in (PLAIN, SCANNED):
        params = params_of(config)
        model = Adapted(transformer=Transformer(config), scale=SCALE)
        adapters = new_adapters(params, config, ALL, rank=8, key=jax.random.key(0))
        expected = logits(Transformer(config), params)
        np.testing.assert_array_equal(logits(model, params), expected)
        np.testing.assert_array_equal(logits(model, params | {ADAPTERS: adapters}), expected)
        found[config] = unrolled(model, params | {ADAPTERS: adapters})[1][ADAPTERS]
    jax.tree.map(np.testing.assert_array_equal, found[PLAIN], found[SCANNED])
    draws = []
    for path in adapted_layers({ADAPTERS: found[PLAIN]}):
        module = module_of(found[PLAIN], path)
        inputs = module_of(params_of(PLAIN), path)["kernel"].shape[0]
        assert not module["b"].any()
        draws.append(module["a"].ravel() * np.sqrt(inputs))
    draws = np.concatenate(draws)  # 1,900 of them, uniform in [-1, 1]
    assert 0.99 < np.abs(draws).max() <= 1 and abs(draws.mean()) < 0.06
    assert abs(draws.std() - 1 / np.sqrt(3)) < 0.03
    assert len(np.unique(draws)) > 0.99 * len(draws)


def test_the_draw_of_an_adapter_is_that_of_its_path_alone():
    key = jax.random.key(7)
    adapters = new_adapters(params_of(PLAIN), PLAIN, ALL, rank=3, key=key)
    for path in adapted_layers({ADAPTERS: adapters}):
        found = module_of(adapters, path)["a"]
        own = jax.random.fold_in(key, zlib.crc32(path.encode()))
        expected = np.asarray(jax.random.uniform(own, found.shape, minval=-1.0, maxval=1.0))
        np.testing.assert_array_equal(found, expected / math.sqrt(len(found)))
    down = module_of(adapters, "trunk/layers_0/feed_forward/down")["a"]
    np.testing.assert_allclose(down[1], [-0.014034586, 0.100525506, -0.162944034], rtol=1e-6)


def test_scales():
    assert adapter_scale(8, 16.0) == 2 and adapter_scale(4, 6.0, rslora=True) == 3


@pytest.mark.slow
def test_an_adapter_of_some_layers_leaves_the_others():
    patterns = ["trunk/layers_1/attention/(query|value)", ".*/down"]
    adapters = random_adapters(PLAIN, patterns)
    assert adapted_layers({ADAPTERS: adapters}) == [
        "trunk/layers_0/feed_forward/down",
        "trunk/layers_1/attention/query",
        "trunk/layers_1/attention/value",
        "trunk/layers_1/feed_forward/down",
    ]
    model = Adapted(transformer=Transformer(PLAIN), scale=SCALE)
    params = params_of(PLAIN) | {ADAPTERS: adapters}
    np.testing.assert_allclose(logits(model, params), logits(*merged(model, params)), atol=2e-5)


def test_patterns_that_choose_nothing_or_half_a_stack_are_refused():
    with pytest.raises(UserError, match=r"'.*/gates' matches no dense layer; .* trunk/layers_0/"):
        random_adapters(PLAIN, [".*/up", ".*/gates"])
    with pytest.raises(UserError, match="chooses some layers of trunk/stack/attention/query"):
        random_adapters(SCANNED, ["trunk/layers_1/attention/query"])
    with pytest.raises(UserError, match="is no regular expression"):
        random_adapters(PLAIN, ["("])


@pytest.mark.slow
def test_dropout_is_of_an_examples_features():
    """With A = B = 1 and W = 0 an output is s x_i / (1 - rate) or 0, alike at all positions."""
    eye, rate = np.eye(4, dtype=np.float32), 0.25
    params = one_layer(eye, eye, 0 * eye, 0 * eye[0])
    model = Adapted(transformer=OneLayer(), scale=2.0, dropout=rate)
    x = np.random.default_rng(0).uniform(1, 2, (500, 3, 4)).astype(np.float32)
    keys = jax.random.split(jax.random.key(0), len(x))
    factor = np.asarray(model.apply({"params": params}, x, keys=keys)) / (2 * x)
    np.testing.assert_allclose(factor, np.where(factor > 0, 1 / (1 - rate), 0), rtol=1e-6)
    assert 0 < (factor > 0).mean() < 1
    np.testing.assert_array_equal(factor > 0, (factor > 0)[:, :1].repeat(3, axis=1))
    # 2000 draws: the mean's standard deviation is 4/3 sqrt(3/16 / 2000) = 0.013
    assert abs(factor.mean() - 1) < 0.05
    np.testing.assert_array_equal(model.apply({"params": params}, x), 2 * x)


@pytest.mark.slow
def test_dropout_of_scanned_layers_is_that_of_the_plain_ones():
    model = Adapted(transformer=Transformer(SCANNED), scale=SCALE, dropout=0.3)
    params = params_of(SCANNED) | {ADAPTERS: random_adapters(SCANNED)}
    plain, its_params = unrolled(model, params)
    noisy = logits(model, params, keys=KEYS)
    np.testing.assert_allclose(noisy, logits(plain, its_params, keys=KEYS), atol=2e-5)
    assert np.abs(noisy - logits(model, params)).max() > 0.1
    turned = logits(model, params, TOKENS[::-1], MASK, keys=KEYS[::-1])
    np.testing.assert_allclose(noisy, turned[::-1], atol=2e-5)
    sites = with_sites(its_params[ADAPTERS], 2)
    numbers = [int(module_of(sites, path)["site"]) for path in adapted_layers(its_params)]
    assert sorted(numbers) == list(range(14))


@pytest.mark.slow
def test_samples_are_those_of_the_merged_network():
    model = Adapted(transformer=Transformer(SCANNED), scale=SCALE)
    params = params_of(SCANNED) | {ADAPTERS: random_adapters(SCANNED)}
    index = np.arange(3, dtype=np.int32)
    prompts = TokenBatch(tokens=TOKENS, prompt_mask=MASK, response_mask=~MASK, index=index)
    drawn, expected = (
        sample(*policy, prompts, jax.random.key(0), max_new_tokens=5, eos_id=0)
        for policy in ((model, params), merged(model, params))
    )
    np.testing.assert_array_equal(drawn.batch.tokens, expected.batch.tokens)
    np.testing.assert_allclose(drawn.logps, expected.logps, atol=1e-4)


def test_int8_by_hand():
    """Largest numbers 254 and 0.5: scales 2 and 0.5 / 127; 3 / 2 = 1.5 rounds to the even 2."""
    q, scales = to_int8(np.array([[254.0, 0.5, 0.0], [3.0, -0.25, 0.0]], np.float32))
    np.testing.assert_array_equal(q, np.array([[127, 127, 0], [2, -64, 0]], np.int8), strict=True)
    np.testing.assert_allclose(scales, [2, 0.5 / 127, 1], rtol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("config", [PLAIN, SCANNED], ids=["plain", "scanned"])
@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_a_quantised_base_computes_with_the_weights_that_it_stands_for(config, precision):
    params = params_of(config)
    base = quantised(params, precision)
    model = Adapted(transformer=Transformer(config), scale=SCALE)
    # one rounding error a product more than in float32, see above
    np.testing.assert_allclose(
        logits(model, base), logits(Transformer(config), weights_of(base)), atol=3e-5
    )
    together = base | {ADAPTERS: random_adapters(config)}
    whole, weights = merged(model, together)
    np.testing.assert_allclose(logits(model, together), logits(whole, weights), atol=3e-5)
    for path in adapted_layers(together):
        exact, stored = (module_of(x, path)["kernel"] for x in (params, weights_of(base)))
        error = np.abs(stored - exact)
        # half a step: of the scale, or of the 8 bits of the number itself
        step = np.abs(exact).max(axis=-2, keepdims=True) / 127
        step = step if precision == "int8" else np.abs(exact) / 128
        assert (error <= step / 2 * 1.0001).all() and error.any()


@pytest.mark.slow
def test_an_int8_base_takes_a_quarter_of_the_memory():
    config = dataclasses.replace(PLAIN, vocab_size=256, width=128, mlp_width=344, heads=4)
    init = jax.eval_shape(Transformer(config).init, jax.random.key(0), TOKENS, MASK)["params"]
    params = jax.tree.map(lambda x: np.ones(x.shape, np.float32), init)

    def size(tree):
        return sum(x.nbytes for x in jax.tree.leaves(tree))

    blocks = [size(quantised(params, p)["trunk"]["layers_0"]) for p in ("float32", "int8")]
    assert 0.25 < blocks[1] / blocks[0] < 0.265
    shares = [size(quantised(params, p)) / size(params) for p in ("bfloat16", "int8")]
    assert 0.5 < shares[0] < 0.51 and 0.25 < shares[1] < 0.3
