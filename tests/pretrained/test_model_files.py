"""Files of models that say two things, lie or are damaged: one line each, whatever wrote them."""

import json
import os
import shutil
import struct
from pathlib import Path

import gguf
import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxalign.commands import export
from jaxalign.config.export import ExportConfig
from jaxalign.errors import UserError
from jaxalign.models.architecture import TransformerConfig
from jaxalign.models.lora import ADAPTERS, Adapted
from jaxalign.models.ngram_reward import NgramConfig
from jaxalign.models.transformer import Transformer
from jaxalign.pretrained.folders import INDEX, SINGLE, load_folder, load_own
from jaxalign.pretrained.gguf.file import open_gguf
from jaxalign.pretrained.gguf.weights import load_gguf
from jaxalign.pretrained.peft import load_adapter, save_adapter
from jaxalign.pretrained.weights import parameter_shapes
from jaxalign.recipes.text_models import load_text_model, save_text_model
from tests import gguf_writer
from tests.folders import FILES
from tests.tiny_models import GEMMA, tiny_policy

DATA = FILES
HF, PEFT = DATA / "hf", DATA / "peft"
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


def copy_of(name, folder):
    """A copy of a tiny Hugging Face model, and its tensors."""
    shutil.copytree(HF / name, folder)
    return folder, load_file(HF / name / SINGLE)


def change(folder, *, file="config.json", **fields):
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def refusal(load, *arguments):
    """The one line with which something is refused."""
    with pytest.raises(UserError) as error:
        load(*arguments)
    line = str(error.value)
    assert "\n" not in line and len(line) < 1000
    return line


def logits(config, params):
    ids, mask = np.arange(1, 8, dtype=np.int32)[None], np.ones((1, 7), bool)
    compiled = jax.jit(Transformer(config).apply)
    return np.asarray(compiled({"params": params}, ids, mask).logits)


def own_model(folder):
    """A model trained here."""
    save_text_model(folder, tiny_policy(8))
    return folder, load_file(folder / SINGLE), json.loads((folder / "config.json").read_text())


def save_own(folder, tensors, config):
    """The two files of a model of ours, which agree."""
    text = json.dumps(config)
    save_file(tensors, folder / SINGLE, metadata={"config": text})
    (folder / "config.json").write_text(text)


# A file says two things


def test_a_head_beside_tied_embeddings_is_used_where_it_differs(tmp_path, capsys):
    """A head of twice the embedding gives twice the logits, exactly."""
    folder, tensors = copy_of("qwen2", tmp_path / "model")
    assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"]
    tied = load_folder(folder)
    save_file(tensors | {HEAD: 1 * tensors[EMBEDDING]}, folder / SINGLE)
    same = load_folder(folder)
    assert same[0] == tied[0] and "unembedding" not in same[1] and not capsys.readouterr().err
    save_file(tensors | {HEAD: 2 * tensors[EMBEDDING]}, folder / SINGLE)
    config, params = load_folder(folder)
    assert not config.tie_embeddings
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{folder}: {HEAD} differs from the embedding, so it is used" in line
    np.testing.assert_array_equal(logits(config, params), 2 * logits(*tied))
    save_file(tensors | {HEAD: tensors[EMBEDDING][:-1]}, folder / SINGLE)
    assert HEAD in refusal(load_folder, folder)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (EMBEDDING, "model.language_model.embed_tokens.weight"),
        (EMBEDDING, "embed_tokens.weight"),
        (HEAD, "language_model.lm_head.weight"),
        ("model.layers.0.mlp.up_proj.weight", "language_model.model.layers.0.mlp.up_proj.weight"),
    ],
)
def test_two_names_of_one_parameter_are_refused(tmp_path, one, other):
    folder, tensors = copy_of("llama", tmp_path / "model")
    save_file(tensors | {other: 2 * tensors[one]}, folder / SINGLE)
    line = refusal(load_folder, folder)
    assert one in line and other in line and "the same parameter" in line


def in_shards(folder, tensors, *, index=None, files=None):
    """The same model in two files, and what a test changes about it."""
    (folder / SINGLE).unlink()
    names = sorted(tensors)
    parts = {"a.safetensors": names[:5], "b.safetensors": names[5:]} | (files or {})
    for file, part in parts.items():
        save_file({name: tensors[name] for name in part}, folder / file)
    found = {name: file for file, part in parts.items() for name in part} | (index or {})
    found = {name: file for name, file in found.items() if file is not None}
    (folder / INDEX).write_text(json.dumps({"weight_map": found}))
    return names


@pytest.mark.parametrize("fault", ["twice", "elsewhere", "missing", "unnamed", "gone"])
def test_the_index_and_its_files_say_the_same(tmp_path, fault):
    folder, tensors = copy_of("qwen2", tmp_path / "model")
    names = sorted(tensors)
    changes = {
        "twice": {"files": {"b.safetensors": names[4:]}},
        "elsewhere": {"index": {names[0]: "b.safetensors"}},
        "missing": {"index": {"model.new": "a.safetensors"}},
        "unnamed": {"index": {names[0]: None}},
        "gone": {"index": {"model.new": "c.safetensors"}},
    }
    in_shards(folder, tensors, **changes[fault])
    named = {"twice": names[4], "missing": "model.new", "gone": "c.safetensors"}
    line = refusal(load_folder, folder)
    assert INDEX in line and named.get(fault, names[0]) in line


def test_an_index_of_the_one_file_is_followed(tmp_path):
    folder, tensors = copy_of("qwen2", tmp_path / "model")
    weight_map = dict.fromkeys(tensors, SINGLE)
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    load_folder(folder)
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map | {"x": SINGLE}}))
    assert "tensor x is not in model.safetensors" in refusal(load_folder, folder)


@pytest.mark.parametrize(
    "content",
    [{}, {"weight_map": {}}, {"weight_map": []}, {"weight_map": {"x": 3}}, [],
     {"weight_map": {"x": "/etc/passwd"}}, {"weight_map": {"x": "a" * 5000 + ".safetensors"}},
     {"weight_map": {"x": "..safetensors/../b.safetensors"}}],
)  # fmt: skip
def test_what_is_no_index(tmp_path, content):
    folder, _ = copy_of("qwen2", tmp_path / "model")
    (folder / SINGLE).unlink()
    (folder / INDEX).write_text(json.dumps(content))
    assert INDEX in refusal(load_folder, folder)


def test_a_side_file_repeats_no_tensor(tmp_path):
    folder, tensors = copy_of("qwen2", tmp_path / "model")
    save_file({EMBEDDING: 2 * tensors[EMBEDDING]}, folder / "value_head.safetensors")
    assert f"{EMBEDDING} stands in {SINGLE} and in value_head" in refusal(load_folder, folder)


@pytest.mark.parametrize(
    ("name", "fields", "named"),
    [
        ("gpt2", {"hidden_size": 40}, "hidden_size is 40, n_embd is 48"),
        ("gpt2", {"num_hidden_layers": 3}, "num_hidden_layers is 3, n_layer is 2"),
        ("gpt2", {"architectures": ["LlamaForCausalLM"]}, "architectures"),
        ("llama", {"architectures": ["Qwen2ForCausalLM"]}, "model_type is llama"),
        ("llama", {"rope_theta": 500.0}, "rope_theta = 500.0"),
        ("llama", {"rope_scaling": {"rope_theta": 3.0}}, "rope_theta differs"),
        ("llama", {"rope_scaling": {"type": "linear", "rope_type": "yarn", "factor": 2}}, "type"),
        ("llama3_rope", {"rope_scaling": {"factor": 2.0}}, "factor differs"),
        ("llama3_rope", {"original_max_position_embeddings": 16}, "original_max_position"),
        ("gemma3", {"rope_local_base_freq": 300.0}, "rope_local_base_freq = 300.0"),
    ],
)
def test_fields_that_disagree_are_refused(tmp_path, name, fields, named):
    folder, _ = copy_of(name, tmp_path / "model")
    change(folder, **fields)
    assert named in refusal(load_folder, folder)


@pytest.mark.parametrize("field", ["hidden_size", "vocab_size", "rope_theta", "layer_types"])
def test_fields_beside_a_text_config_agree_with_it(tmp_path, field):
    folder, _ = copy_of("gemma3", tmp_path / "model")
    text = json.loads((folder / "config.json").read_text()) | {"rope_theta": 1e6}
    outer = {"model_type": "gemma3", "text_config": text, "vision_config": {"hidden_size": 3}}
    (folder / "config.json").write_text(json.dumps(outer | {field: text[field]}))
    plain = load_folder(HF / "gemma3")
    assert load_folder(folder)[0] == plain[0]
    (folder / "config.json").write_text(json.dumps(outer | {field: [7]}))
    assert f"config.json: {field} is [7], and in text_config" in refusal(load_folder, folder)


# Models of ours are checked as those of others are


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"layers": 2}, "trunk/layers_1/"),
        ({"width": 32}, "trunk/embedding has the shape"),
        ({"rope_theta": -5.0}, "rope_theta must be a number above 1"),
        ({"rope_theta": float("nan")}, "rope_theta"),
        ({"norm_epsilon": 0.0}, "norm_epsilon"),
        ({"logit_softcap": -1.0}, "logit_softcap"),
        ({"attention_scale": float("inf")}, "attention_scale"),
        ({"layers": 10**12}, "layers must be a whole number from 1 to 1,024"),
        ({"max_length": 10**18}, "max_length"),
        ({"heads": 10**9}, "heads"),
        ({"vocab_size": True}, "vocab_size"),
        ({"windows": [3] * 5}, "windows"),
        ({"windows": [-3]}, "windows"),
        ({"windows": [10**30]}, "windows"),
        ({"dropout": "0.1"}, "dropout"),
        ({"rope_thetta": 3.0}, "unknown field 'rope_thetta'; the nearest is rope_theta"),
        ({"rope_scaling": {"kind": "linear", "factr": 2.0}}, "'factr'; the nearest is factor"),
        ({"heads_out": ["logits", "logits"]}, "heads_out"),
        ({"heads_out": []}, "heads_out"),
    ],
)
def test_a_configuration_of_ours_is_checked(tmp_path, fields, named):
    folder, tensors, config = own_model(tmp_path)
    save_own(folder, tensors, config | fields)
    assert named in refusal(load_own, folder)


def with_value(array, value):
    array = array.copy()
    array.flat[5] = value
    return array


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (lambda x: None, "no tensor trunk/embedding"),
        (lambda x: x[:, :8], r"trunk/embedding has the shape"),
        (lambda x: x[None], "trunk/embedding has the shape"),
        (lambda x: x.astype(np.int64), "trunk/embedding is of type I64"),
        (lambda x: x > 0, "trunk/embedding is of type BOOL"),
        (lambda x: x.astype(np.uint8), "trunk/embedding is of type U8"),
        (lambda x: x.astype(np.complex64), "trunk/embedding is of type C64"),
        (lambda x: with_value(x, np.nan), "trunk/embedding has the value nan at [0, 5]"),
        (lambda x: with_value(x, -np.inf), "trunk/embedding has the value -inf at [0, 5]"),
        (lambda x: with_value(x.astype(np.float64), 1e39), "the value inf at [0, 5]"),
        (lambda x: with_value(x.astype(np.float16), np.inf), "the value inf at [0, 5]"),
    ],
)
def test_tensors_of_ours_are_checked(tmp_path, changed, named):
    folder, tensors, config = own_model(tmp_path)
    embedding = changed(tensors.pop("trunk/embedding"))
    save_own(
        folder, tensors | ({} if embedding is None else {"trunk/embedding": embedding}), config
    )
    line = refusal(load_text_model, tmp_path, "policy")
    assert line.startswith(f"--policy: {folder}") and named in line


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_named_in_every_source(tmp_path, value):
    folder, tensors = copy_of("llama", tmp_path / "model")
    name = "model.layers.1.mlp.up_proj.weight"
    save_file(tensors | {name: with_value(tensors[name], value)}, folder / SINGLE)
    assert f"{name} has the value {value}" in refusal(load_folder, folder)
    gguf_writer.convert(folder, tmp_path / "x.gguf")
    assert f"blk.1.ffn_up.weight has the value {value}" in refusal(load_gguf, tmp_path / "x.gguf")
    adapter, config, params = an_adapter(tmp_path)
    tensors = load_file(adapter / "adapter_model.safetensors")
    name = next(iter(tensors))
    tensors[name] = with_value(tensors[name], value)
    save_file(tensors, adapter / "adapter_model.safetensors")
    assert f"the value {value}" in refusal(load_onto, adapter, config, params)


def test_shapes_are_those_that_the_network_makes():
    """One layer is looked at for all of them."""
    small = {"vocab_size": 11, "max_length": 8, "width": 8, "heads": 2, "kv_heads": 1, "layers": 2}
    for more in (
        GEMMA | {"heads_out": ("score", "value"), "value_trunk": "separate"},
        {"positions": "learned", "activation": "gelu", "norm": "layer", "mlp_biases": True},
        {"scan_layers": True, "tie_embeddings": False, "heads_out": ("logits", "step_score")},
    ):
        config = TransformerConfig(**(small | more))
        key, (ids, mask) = jax.random.key(0), (np.zeros((1, 2), np.int32), np.ones((1, 2), bool))
        read = NgramConfig(buckets=5, token_characters=2) if "score" in config.heads_out else None
        made = jax.eval_shape(Transformer(config, ngrams=read).init, key, ids, mask)["params"]
        shapes = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
                  for path, leaf in jax.tree_util.tree_leaves_with_path(made)}  # fmt: skip
        assert parameter_shapes(config, read) == shapes


# Adapters


def an_adapter(folder):
    """A copy of an adapter, and its base."""
    adapter = shutil.copytree(PEFT / "llama_plain", folder / "adapter")
    return adapter, *load_folder(PEFT / "llama")


def load_onto(adapter, config, params):
    return load_adapter(adapter, params, config, scale=1.0)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"lora_alpha": float("nan")}, "lora_alpha"),
        ({"lora_alpha": "3"}, "lora_alpha"),
        ({"r": 3}, "r = 3 .* have rank 2"),
        ({"r": 10**12}, "r = 1000000000000 "),
        (
            {"rank_pattern": {"up_proj": 7}},
            "rank_pattern = .* rank 2; r and rank_pattern say 7",
        ),
        ({"rank_pattern": {"up_proj": "7"}}, "rank_pattern"),
        ({"alpha_pattern": {"up_proj": float("inf")}}, "alpha_pattern"),
        ({"alpha_pattern": {"(([a-z_.0-9])+)+(?<=!)": 3}}, "alpha_pattern: the pattern"),
        ({"alpha_pattern": [3]}, "alpha_pattern"),
        ({"use_rslora": "yes"}, "use_rslora"),
        ({"init_lora_weights": ["gaussian"]}, "init_lora_weights"),
        ({"target_modules": ["q_proj"]}, "target_modules = .* does not choose model.layers.0"),
        ({"target_modules": ".*_attn.*"}, r"target_modules = .* does not choose .*mlp"),
        ({"target_modules": {"q_proj": 3}}, "target_modules"),
        ({"exclude_modules": ["up_proj"]}, "exclude_modules = .* it excludes .*up_proj"),
        ({"layers_to_transform": [0]}, r"layers_to_transform = .* leaves out model.layers.1"),
        ({"layers_to_transform": "0"}, "layers_to_transform"),
    ],
)
def test_what_an_adapter_says_of_itself_is_so(tmp_path, fields, named):
    adapter, config, params = an_adapter(tmp_path)
    change(adapter, file="adapter_config.json", **fields)
    with pytest.raises(UserError, match=rf"^.*adapter_config\.json: {named}"):
        load_onto(adapter, config, params)


def test_patterns_of_an_adapter_cost_no_time(tmp_path):
    adapter, config, params = an_adapter(tmp_path)
    plain = load_onto(adapter, config, params)
    fields = {"alpha_pattern": {"(([a-z_.0-9])+)+!": 9}, "target_modules": r"(.*\.)*[a-z]+_proj"}
    change(adapter, file="adapter_config.json", **fields)
    jax.tree.map(np.testing.assert_array_equal, load_onto(adapter, config, params), plain)


def test_two_names_of_one_matrix_are_refused(tmp_path):
    adapter, config, params = an_adapter(tmp_path)
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    name = next(iter(tensors))
    save_file(tensors | {name.removeprefix("base_model.model."): 2 * tensors[name]}, file)
    assert "the same parameter" in refusal(load_onto, adapter, config, params)
    default = name.replace(".weight", ".default.weight")
    save_file(tensors | {default: 2 * tensors[name]}, file)
    assert "belongs to no adapter" in refusal(load_onto, adapter, config, params)


# Files that are none, or that lie


def sources(folder):
    """Of each source: the files it is read from, and what reads them."""
    own = folder / "own"
    own_model(own)
    theirs, tensors = copy_of("qwen2", folder / "theirs")
    in_shards(theirs, tensors)
    gguf_writer.convert(HF / "llama", folder / "x.gguf")
    adapter, *base = an_adapter(folder)
    return [
        (lambda: load_text_model(own, "policy"), [own / SINGLE, own / "config.json"]),
        (lambda: load_folder(theirs), [theirs / INDEX, theirs / "a.safetensors"]),
        (lambda: load_gguf(folder / "x.gguf"), [folder / "x.gguf"]),
        (
            lambda: load_onto(adapter, *base),
            [adapter / "adapter_model.safetensors", adapter / "adapter_config.json"],
        ),
    ]


def make_device(path):
    path.symlink_to("/dev/zero")


def make_loop(path):
    path.symlink_to(path.name)


@pytest.mark.parametrize("make", [os.mkfifo, make_device, Path.mkdir, make_loop])
def test_what_is_no_file_is_never_waited_for(tmp_path, make):
    for load, files in sources(tmp_path):
        for file in files:
            content = file.read_bytes()
            file.unlink()
            make(file)
            assert file.name in refusal(load)
            file.rmdir() if file.is_dir() else file.unlink()
            file.write_bytes(content)
        load()


def test_what_is_cut_off_or_empty_is_one_line(tmp_path):
    for load, files in sources(tmp_path):
        for file in files:
            content = file.read_bytes()
            for length in [0, 1, 7, 8, 9, 30, *range(100, len(content) - 40, len(content) // 9)]:
                file.write_bytes(content[:length])
                assert file.name in refusal(load)
            file.write_bytes(content)


def f32(**more):
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | more


@pytest.mark.parametrize(
    ("header", "data"),
    [
        (b"\xff" * 8, b""),
        ((2**60).to_bytes(8, "little"), b"{}"),
        (json.dumps({"w": f32(data_offsets=[0, 2**50])}), b"0" * 8),
        (json.dumps({"w": f32(), "v": f32()}), b"0" * 8),
        (json.dumps({"w": f32(), "v": f32(data_offsets=[4, 12])}), b"0" * 12),
        (json.dumps({"w": f32()}), b"0" * 16),
        (json.dumps({"w": f32(shape=[2**62, 4], data_offsets=[0, 0])}), b""),
        (json.dumps({"w": f32(shape=[0, 2**60], data_offsets=[0, 0])}), b""),
        (json.dumps({"w": f32(shape=[-2])}), b"0" * 8),
        (json.dumps({"w": f32(shape=[], data_offsets=[0, 4])}), b"0" * 4),
        (json.dumps({"w": f32(dtype="F8_E4M3", shape=[8])}), b"0" * 8),
        (json.dumps({"w": f32(dtype="F4", shape=[16])}), b"0" * 8),
        (json.dumps({"w": f32(dtype="Q7")}), b"0" * 8),
        (json.dumps({"w": f32(dtype=[])}), b"0" * 8),
        (json.dumps({"__metadata__": {"x": 3}, "w": f32()}), b"0" * 8),
        (json.dumps({"w\ud800": f32()}), b"0" * 8),
        ('{"w": %s, "w": %s}' % ((json.dumps(f32()),) * 2), b"0" * 8),
        ("[" * 100_000, b""),
        ("[]", b""),
        (b"\xff\xfe{}", b""),
    ],
)
def test_headers_that_lie_are_one_line(tmp_path, header, data):
    folder, _ = copy_of("llama", tmp_path / "model")
    text = header
    if isinstance(header, str):
        text = header.encode("utf-8", "surrogatepass")
        text = len(text).to_bytes(8, "little") + text
    (folder / SINGLE).write_bytes(text + data)
    assert str(folder) in refusal(load_folder, folder)


# GGUF files, written by hand: 32 bytes of numbers in the tensor "w"

KINDS = {int: (4, "<I"), float: (6, "<f"), bool: (7, "<?")}


def text(value):
    return struct.pack("<Q", len(value.encode())) + value.encode()


def valued(value):
    """A value with its type in front."""
    if isinstance(value, str):
        return struct.pack("<I", 8) + text(value)
    if isinstance(value, bytes):  # as it is
        return value
    if isinstance(value, list):
        items = [valued(item) for item in value]
        kind = items[0][:4] if items else struct.pack("<I", 4)
        return (
            struct.pack("<I", 9)
            + kind
            + struct.pack("<Q", len(items))
            + b"".join(item[4:] for item in items)
        )
    kind, form = KINDS[type(value)]
    return struct.pack("<I", kind) + struct.pack(form, value)


def gguf_bytes(keys, *, counts=None, tensor=None, alignment=32, data=32):
    """A file of one tensor; `counts` are those that the header announces."""
    tensor = tensor or struct.pack("<Q1sI2QIQ", 1, b"w", 2, 4, 2, 0, 0)
    tensors, number = counts or (1, len(keys))
    header = b"GGUF" + struct.pack("<IQQ", 3, tensors, number)
    header += b"".join(text(name) + valued(value) for name, value in keys) + tensor
    return header + bytes(-len(header) % alignment) + bytes(data)


ONE = ("general.architecture", "llama")


def listed(kind, count, items=b""):
    """A list of numbers of a type, which announces so many."""
    return struct.pack("<IIQ", 9, kind, count) + items


def info(*, name=b"w", shape=(4, 2), kind=0, offset=0):
    return (
        struct.pack("<Q", len(name)) + name + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        + struct.pack("<IQ", kind, offset)
    )  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"GGUF",
        b"GGUF" + struct.pack(">IQQ", 3, 1, 1) + bytes(99),
        b"GGUF" + struct.pack("<IQQ", 1, 1, 1) + bytes(99),
        gguf_bytes([ONE], counts=(2**60, 1)),
        gguf_bytes([ONE], counts=(1, 2**60)),
        gguf_bytes([ONE, ONE]),
        gguf_bytes([ONE, ("x", struct.pack("<IQ", 8, 2**50) + b"abc")]),
        gguf_bytes([ONE, ("x", listed(0, 2**40))]),
        gguf_bytes([ONE, ("x", listed(0, 2**24))]),
        gguf_bytes([ONE, ("x", listed(8, 2**40, text("a")))]),
        gguf_bytes([ONE, ("x", listed(9, 1, struct.pack("<IQ", 9, 2**40)))]),
        gguf_bytes([ONE, ("x", listed(77, 1, b"1234"))]),
        gguf_bytes([ONE, ("x", struct.pack("<IQ", 77, 0))]),
        gguf_bytes([ONE, ("x", struct.pack("<IB", 7, 3))]),
        gguf_bytes([ONE, ("x", struct.pack("<IQ", 8, 2) + b"\xff\xfe")]),
        gguf_bytes([ONE, ("general.alignment", 0)]),
        gguf_bytes([ONE, ("general.alignment", 3)]),
        gguf_bytes([ONE, ("general.alignment", "32")]),
        gguf_bytes([ONE, ("general.alignment", True)]),
        gguf_bytes([ONE, ("split.count", "two")]),
        gguf_bytes([ONE, ("split.count", 99999)]),
        gguf_bytes([ONE], tensor=info(shape=(2**40, 2**40))),
        gguf_bytes([ONE], tensor=info(shape=(0, 2**60))),
        gguf_bytes([ONE], tensor=info(shape=(1,) * 99)),
        gguf_bytes([ONE], tensor=info(shape=())),
        gguf_bytes([ONE], tensor=info(kind=999)),
        gguf_bytes([ONE], tensor=info(kind=2)),
        gguf_bytes([ONE], tensor=info(offset=2**63)),
        gguf_bytes([ONE], tensor=info(offset=4)),
        gguf_bytes([ONE], tensor=info() * 2, counts=(2, 1)),
        gguf_bytes([ONE], tensor=info() + info(name=b"v"), counts=(2, 1)),
        gguf_bytes([ONE], data=16),
    ],
)
def test_gguf_headers_that_lie_are_one_line(tmp_path, content):
    file = tmp_path / "x.gguf"
    file.write_bytes(content)
    line = refusal(load_gguf, file)
    said = (" is no whole GGUF file (", ": x is not UTF-8", ": split.count: ", " is one of 99999 ")
    assert line.startswith(f"{file}") and any(x in line for x in said)


def test_a_gguf_file_by_hand_is_read(tmp_path):
    """So that what is refused above is refused for its fault."""
    file = tmp_path / "x.gguf"
    keys = [("a", 3), ("b", 1e-5), ("c", [True, False]), ("d", ["x", "é"]), ("e", [])]
    file.write_bytes(gguf_bytes([ONE, *keys]))
    (opened,) = open_gguf(file)
    assert opened.fields == dict([ONE, *keys])
    assert opened.tensors["w"].shape == (4, 2) and opened.tensors["w"].data.shape == (2, 4)
    reader = gguf.GGUFReader(file)
    assert [tensor.name for tensor in reader.tensors] == ["w"]
    assert reader.fields["d"].contents() == ["x", "é"]


def test_a_tensor_in_two_parts_of_a_gguf_file(tmp_path):
    for number in (1, 2):
        keys = [ONE, ("split.count", 2)]
        (tmp_path / f"x-{number:05d}-of-00002.gguf").write_bytes(gguf_bytes(keys))
    line = refusal(load_gguf, tmp_path / "x-00001-of-00002.gguf")
    assert "tensor w stands in x-00001-of-00002.gguf too" in line
    (tmp_path / "y-00001-of-99999.gguf").write_bytes(gguf_bytes([ONE, ("split.count", 99999)]))
    line = refusal(load_gguf, tmp_path / "y-00001-of-99999.gguf")
    assert "y-00002-of-99999.gguf does not exist" in line


# Writing


def test_all_files_have_the_mode_of_their_neighbours(tmp_path):
    """And none is written through a link, or beside itself under a name that can be foreseen."""
    own, out = tmp_path / "own", tmp_path / "out"
    before = os.umask(0o027)
    try:
        own_model(own)
        export.run(ExportConfig(model=str(own), output=str(out), shard_gigabytes=2e-5))
        config, params = load_folder(PEFT / "llama")
        model = Adapted(transformer=Transformer(config), scale=1.0)
        adapters = load_adapter(PEFT / "llama_plain", params, config, scale=1.0)
        (tmp_path / "adapter").mkdir()
        (tmp_path / "adapter" / "adapter_model.safetensors").symlink_to(tmp_path / "target")
        save_adapter(tmp_path / "adapter", model, params | {ADAPTERS: adapters})
    finally:
        os.umask(before)
    folders = [own, out, tmp_path / "adapter"]
    files = [file for folder in folders for file in folder.iterdir()]
    assert len(files) > 12 and not (tmp_path / "target").exists()
    assert {oct(file.lstat().st_mode & 0o777) for file in files} == {"0o640"}
    assert {oct(folder.stat().st_mode & 0o777) for folder in folders} == {"0o750"}
    assert len(list(tmp_path.iterdir())) == 3
