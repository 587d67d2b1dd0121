"""Attention by accelerators' kernels equals attention as it is written: run here by interpretation,
or by the plain form of the same function.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxalign.batches.tokens import TokenBatch
from jaxalign.layouts.choice import make_layout
from jaxalign.logprobs import shift_right
from jaxalign.models import attention, kernels
from jaxalign.models.attention import attend, attention_mask, of_last_queries
from jaxalign.models.functions import text_logps
from jaxalign.models.kernels import by_cudnn, by_splash, kernel_for
from jaxalign.models.shared_prefix import SharedPrefix
from jaxalign.models.transformer import Transformer, TransformerConfig

B, N, K, H = 2, 4, 2, 64
plain = functools.partial(by_cudnn, implementation="xla")


@pytest.fixture
def interpreted(monkeypatch):
    """The kernel of TPUs for texts of any length, here."""
    monkeypatch.setattr(kernels, "INTERPRETED", True)
    monkeypatch.setattr(kernels, "LONG", 1)


def inputs(queries: int, columns: int, seed: int = 0):
    keys = jax.random.split(jax.random.key(seed), 3)
    shapes = (B, N, queries, H), (B, K, columns, H), (B, K, columns, H)
    return [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]


def masks(columns: int) -> jax.Array:
    """One row padded left and inside, one padded right."""
    column = np.arange(columns)
    left = (column >= 3) & (column != columns // 2)
    return jnp.array([left, column < columns - 5])


def both(kernel, queries, columns, *, softcap=None, segments=None):
    """Outputs and gradients of the kernel and of `attend`, at queries that see something."""
    q, k, v = inputs(queries, columns)
    mask = attention_mask(masks(columns), queries, segments=segments)
    told = {"scale": 0.3, "softcap": softcap}
    sees = mask.visible.any(axis=2)[:, None, :, None]
    weights = jnp.where(sees, jax.random.normal(jax.random.key(9), q.shape), 0)

    def value(fn):
        def weighed(q, k, v):
            out = jnp.where(sees, fn(q, k, v), 0)
            return (out * weights).sum(), out

        (_, out), slopes = jax.value_and_grad(weighed, (0, 1, 2), has_aux=True)(q, k, v)
        return [out, *slopes]

    given = value(lambda q, k, v: kernel(q, k, v, mask=mask, **told))
    return given, value(lambda q, k, v: attend(q, k, v, mask.visible, **told))


CASES = {
    "whole rows": (by_splash, 130, 130, {}),
    "their ends": (by_splash, 40, 200, {"softcap": 2.0}),
    "packed": (by_splash, 128, 128, {"segments": jnp.arange(128)[None].repeat(B, 0) // 50}),
    "several tiles": (by_splash, 200, 300, {}),
    "many tiles": (by_splash, 130, 640, {}),
    "cudnn, whole rows": (plain, 130, 130, {}),
    "cudnn, their ends": (plain, 40, 200, {}),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_kernel_and_its_gradients_are_those_of_attention(case, interpreted, monkeypatch):
    kernel, queries, columns, settings = CASES[case]
    if "tiles" in case:
        monkeypatch.setattr(kernels, "TILES", (128,))
    for given, wanted in zip(*both(kernel, queries, columns, **settings), strict=True):
        assert np.abs(wanted).max() > 0.1
        np.testing.assert_allclose(given, wanted, atol=2e-5)


def test_segment_ids_are_the_attention_mask_in_short():
    """Packed, padded, of whole rows and of their ends."""
    segments = jnp.array([[0] * 9 + [1] * 11, [0] * 20])
    for queries in (20, 6):
        mask = of_last_queries(attention_mask(masks(20), 20, segments=segments), queries)
        assert mask.segment_ids is not None
        of_queries, of_keys = mask.segment_ids
        causal = jnp.arange(20)[None] <= (20 - queries + jnp.arange(queries))[:, None]
        same = (of_queries[:, :, None] == of_keys[:, None]) & causal[None]
        np.testing.assert_array_equal(same, mask.visible)


def network(**changes):
    sizes = {"vocab_size": 31, "max_length": 96, "width": 128, "layers": 1, "heads": 2}
    model = Transformer(TransformerConfig(**sizes, kv_heads=1, mlp_width=32, **changes))
    tokens = jax.random.randint(jax.random.key(1), (8, 24), 0, 31)
    mask = jnp.arange(24)[None] >= jnp.arange(8)[:, None]
    params = model.init(jax.random.key(0), tokens, mask)["params"]
    return model, params, tokens, mask


@pytest.mark.slow
def test_a_network_with_the_kernel_is_the_same_network(interpreted, monkeypatch):
    """Whole rows, and the last columns of rows with two continuations."""
    model, params, tokens, mask = network()

    def all_of_them():
        shared_prefix = SharedPrefix(columns=10, count=2)
        cases: list[dict] = [{}, {"shared_prefix": shared_prefix, "last": 16}]
        outputs: list[Any] = [
            model.apply({"params": params}, tokens, mask, **more) for more in cases
        ]
        return [output.logits for output in outputs]

    calls = []
    monkeypatch.setattr(
        attention,
        "kernel_for",
        lambda *args, **more: calls.append(1) or kernel_for(*args, **more),
    )
    given = all_of_them()
    assert len(calls) == 1 + 2
    monkeypatch.setattr(attention, "kernel_for", lambda *args, **more: None)
    for ours, plain in zip(given, all_of_them(), strict=True):
        np.testing.assert_allclose(ours[mask], plain[mask], atol=2e-5)  # left of it nothing is seen


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["pmap", "shards", "mesh"])
def test_every_layout_gives_a_device_its_own_rows(layout, interpreted):
    model, params, tokens, mask = network()
    none = jnp.zeros_like(mask)
    rows = TokenBatch(tokens=tokens, prompt_mask=none, response_mask=mask, index=jnp.arange(8))
    place = make_layout(layout, devices=4)
    logps = text_logps(model)
    given = place.rows(logps)(place.place(params), jax.device_get(rows))
    kernels.INTERPRETED = False  # undone by the fixture
    wanted = logps(params, rows)
    predicted = mask & shift_right(mask)
    np.testing.assert_allclose(given[predicted], wanted[predicted], atol=2e-5)


def test_which_kernel_is_taken(monkeypatch):
    wide = jnp.zeros((1, 2, 600, 64), jnp.bfloat16)
    mask = attention_mask(jnp.ones((1, 600), bool), 600)
    windowed = kernels.AttentionMask(visible=mask.visible, segment_ids=None)

    def chosen(platform, q=wide, mask=mask, softcap=None):
        monkeypatch.setattr(jax, "default_backend", lambda: platform)
        monkeypatch.setattr(kernels, "has_cudnn", lambda: True)
        return kernel_for(q, q, mask=mask, softcap=softcap)

    assert chosen("cpu") is None
    assert chosen("tpu") is by_splash and chosen("tpu", softcap=5.0) is by_splash
    assert chosen("tpu", mask=windowed) is None
    assert chosen("tpu", q=wide[:, :, :400]) is None
    assert chosen("tpu", q=wide[..., :40]) is None
    assert chosen("gpu") is by_cudnn and chosen("gpu", mask=windowed) is by_cudnn
    assert chosen("gpu", softcap=5.0) is None
    assert chosen("gpu", q=wide.astype(jnp.float32)) is None
    assert chosen("gpu", q=wide[:, :, :599]) is None


@pytest.mark.parametrize(
    ("capability", "has"), [("9.0", True), ("8.0", True), ("7.5", False), ("gfx90a", False)]
)
def test_older_and_other_gpus_have_no_cudnn_attention(capability, has, monkeypatch):
    class Device:
        compute_capability = capability

    monkeypatch.setattr(jax, "devices", lambda: [Device()])
    assert kernels.has_cudnn() == has


def test_rows_that_a_mesh_does_not_divide_are_left_to_blocks(interpreted):
    q = jnp.zeros((4, 2, 128, 64))
    mask = attention_mask(jnp.ones((4, 128), bool), 128)
    for devices, kernel in ((2, by_splash), (8, None)):
        axis = jax.sharding.AxisType.Auto
        with jax.set_mesh(jax.make_mesh((devices,), ("data",), axis_types=(axis,))):
            assert kernel_for(q, q, mask=mask, softcap=None) is kernel


@pytest.mark.slow
def test_a_cache_is_read_in_blocks_of_queries():
    q, k, v = inputs(300, 340)
    mask = attention_mask(masks(340), 300)
    blockwise = functools.partial(attention.attend_to_cache, mask=mask)
    np.testing.assert_allclose(blockwise(q, k, v), attend(q, k, v, mask.visible), atol=1e-5)
    text = str(jax.make_jaxpr(blockwise)(q, k, v))
    assert "4,300,340" not in text and "4,60,340" in text
