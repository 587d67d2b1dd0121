"""Every field of every file of a model, changed in every way: refused by name, or read, or without
effect."""

import dataclasses
import json
import math
import random
import shutil

import gguf
import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxalign.errors import UserError
from jaxalign.models.architecture import TransformerConfig
from jaxalign.models.rope import RopeScaling
from jaxalign.pretrained.folders import load_folder, load_own
from jaxalign.pretrained.gguf.config import read_gguf_config
from jaxalign.pretrained.gguf.file import open_gguf
from jaxalign.pretrained.gguf.tokenizer import load_gguf_tokenizer
from jaxalign.pretrained.gguf.weights import load_gguf
from jaxalign.pretrained.hugging_face.config import read_config
from jaxalign.pretrained.hugging_face.fields import Fields
from jaxalign.pretrained.hugging_face.llama_names import LLAMA_LAYER, llama_rule
from jaxalign.pretrained.peft import load_adapter
from jaxalign.recipes.text_models import save_text_model
from jaxalign.system.files import json_of
from tests import gguf_writer
from tests.folders import FILES
from tests.tiny_models import tiny_policy

DATA = FILES
HF, PEFT = DATA / "hf", DATA / "peft"
FOLDERS = sorted(path.name for path in HF.iterdir() if path.is_dir())
# What no forward pass reads: whatever stands there, the model is the same.
NO_EFFECT = {
    *("_name_or_path", "_sliding_window_pattern", "attention_dropout", "attn_pdrop"),
    *("bos_token_id", "embd_pdrop", "eos_token_id", "initializer_range", "is_llama_config"),
    *("n_ctx", "pad_token_id", "pretraining_tp", "reorder_and_upcast_attn", "resid_pdrop"),
    *("rope_interleaved", "summary_activation", "summary_first_dropout"),
    *("summary_proj_to_labels", "summary_type", "summary_use_proj", "task_specific_params"),
    *("torch_dtype", "dtype", "transformers.js_config", "transformers_version", "use_cache"),
    *("cache_implementation", "hidden_act", "attn_logit_softcapping"),  # two: of Gemma alone
}
ADAPTER_NO_EFFECT = {
    *("task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision"),
    *("inference_mode", "lora_dropout", "fan_in_fan_out", "layers_pattern", "megatron_config"),
    *("megatron_core", "loftq_config", "eva_config", "qalora_group_size", "ensure_weight_tying"),
}
ADAPTER_READ = {
    *("peft_type", "bias", "r", "lora_alpha", "use_rslora", "alpha_pattern", "rank_pattern"),
    *("init_lora_weights", "target_modules", "exclude_modules", "layers_to_transform"),
}
# Patterns that match no module.
NO_MODULE = [
    ("alpha_pattern", {"surprise": 7}),
    ("rank_pattern", {"surprise": 7}),
    ("exclude_modules", "x"),
]
HUGE = 10**400
NAN, INFINITY = math.nan, math.inf
# By the type of what stands in the field: what can never be right there.
NO_NUMBER = ["7", "", [], [7], {}, {"a": 7}, True, False, NAN, INFINITY, -INFINITY, -1, HUGE, -HUGE]
WRONG = {
    int: [*NO_NUMBER, 7.5, 10**18],
    float: [*NO_NUMBER, 10**18],
    bool: ["true", 1, 0, NAN, [], [True], {}, HUGE],
    str: [7, True, NAN, [], ["gelu"], {}, "nonsense", "x" * 10_000, "gelu\n", HUGE],
    list: [7, True, "x", {}, [7], [[]], [None], [{}], ["x"] * 10_000, [HUGE]],
    dict: [7, True, "x", [], [{}], {"surprise": 7}, {"rope_type": []}, {"rope_type": HUGE}],
}


def outcome(names, read, *arguments):
    """What is read, or None where it is refused in one short line that has all those names."""
    try:
        return read(*arguments)
    except UserError as error:
        line = str(error)
        assert "\n" not in line and len(line) < 1000, line
        assert all(name in line for name in names), (names, line)
        return None


def places(content, path=()):
    """The path of every value in nested objects."""
    for name, value in content.items():
        yield (*path, name), value
        if isinstance(value, dict):
            yield from places(value, (*path, name))


def changed(content, path, value):
    """The object with another value there; an Ellipsis: with none."""
    name, *rest = path
    inner = changed(content[name], rest, value) if rest else value
    kept = {key: old for key, old in content.items() if key != name}
    return kept if inner is ... else kept | {name: inner}


def wrong_for(name, value):
    """What can never stand in that field."""
    either = name in ("query_pre_attn_scalar", "lora_alpha") and isinstance(value, int)
    return WRONG[float if either else type(value)]


def as_json(content):
    """Through text, as from a file."""
    return json_of(json.dumps(content), dict, "config.json")


def config_of(content):
    """As a `config.json` of Hugging Face is read."""
    return read_config(as_json(content), "config.json")


@pytest.mark.parametrize("name", FOLDERS)
def test_every_field_of_a_published_configuration(name):
    content = json.loads((HF / name / "config.json").read_text())
    expected = config_of(content)
    gemma, read = name.startswith("gemma"), 0
    for path, value in places(content):
        field = path[0]
        if value is None or (field == "attn_logit_softcapping" and name.startswith("gemma2")):
            continue
        for wrong in wrong_for(field, value):
            found = outcome(["config.json", field], config_of, changed(content, path, wrong))
            if field in NO_EFFECT and (gemma or field != "hidden_act"):
                assert found == expected, (path, wrong)
            elif field == "architectures":  # a class that is unknown says nothing
                assert found in (None, expected), wrong
            else:
                assert found is None, (path, wrong)
                read += 1
        for missing in (None, ...):
            outcome(["config.json: "], config_of, changed(content, path, missing))
        twice = json.dumps({field: content[field]})[:-1] + "," + json.dumps(content)[1:]
        assert outcome(["config.json", field], json_of, twice, dict, "config.json") is None
    assert read > 100


def own_config(content):
    """As a `config.json` of ours is read."""
    return TransformerConfig.from_json(as_json(content))


def test_every_field_of_a_model_trained_here():
    config = TransformerConfig(
        vocab_size=11, max_length=8, windows=(3, 0), layers=2, head_size=8, attention_scale=0.5,
        attention_softcap=5.0, logit_softcap=3.0, window_rope_theta=500.0,
        rope_scaling=RopeScaling(kind="yarn", factor=2.0, original_length=8, attention_factor=1.5),
        window_rope_scaling=RopeScaling(kind="linear", factor=2.0),
    )  # fmt: skip
    content = json.loads(json.dumps(dataclasses.asdict(config)))
    assert TransformerConfig.from_json(content) == config
    read = 0
    for path, value in places(content):
        for wrong in WRONG[type(value)] if value is not None else ():
            found = outcome(["config.json: ", path[-1]], own_config, changed(content, path, wrong))
            assert found is None, (path, wrong)
            read += 1
        for missing in (None, ...):
            outcome(["config.json: "], own_config, changed(content, path, missing))
    assert read > 400


@pytest.fixture(scope="module")
def base():
    return load_folder(PEFT / "llama")


def test_every_field_of_an_adapter(base, tmp_path):
    folder = shutil.copytree(PEFT / "llama_patterns", tmp_path / "adapter")
    file = folder / "adapter_config.json"
    content, (config, params) = json.loads(file.read_text()), base

    def read():
        return load_adapter(folder, params, config, scale=1.0)

    expected, refused = read(), 0
    for name, value in content.items():
        anything = (7, "x", [7], {"x": 7}, True, NAN, HUGE)
        for wrong in anything if value is None else wrong_for(name, value):
            if (name, wrong) in NO_MODULE:
                continue
            file.write_text(json.dumps(content | {name: wrong}))
            found = outcome(["adapter_config.json: ", name], read)
            refused += found is None
            if found is not None:
                neutral = not wrong and name not in ADAPTER_READ
                assert neutral or name in ADAPTER_NO_EFFECT, (name, wrong)
                jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert refused > 150


def gguf_content(folder, name):
    """Metadata and shapes of a model that is converted from a folder."""
    gguf_writer.convert(HF / name, folder / "x.gguf", keys=GGUF_KEYS.get(name, ()))
    (file,) = open_gguf(folder / "x.gguf")
    shapes = {name: tuple(reversed(x.shape)) for name, x in file.tensors.items()}
    return file.fields, shapes


GGUF_KEYS = {
    "qwen2": {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": 2.0,
        "rope.scaling.original_context_length": 32,
        "rope.scaling.yarn_beta_fast": 16.0,
        "rope.scaling.yarn_beta_slow": 1.0,
        "rope.scaling.yarn_ext_factor": 1.0,
    },
    "llama": {"vocab_size": 199, "attention.causal": True, "attention.scale": 0.5,
              "rope.scale_linear": 2.0, "tensor_data_layout": "Meta AI original pth"},
    "gemma3": {"attention.sliding_window_pattern": [True, False, True, False],
               "rope.freq_base_swa": 1e4},
}  # fmt: skip


@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma2", "gemma3", "gpt2"])
def test_every_key_of_a_gguf_file(name, tmp_path):
    fields, shapes = gguf_content(tmp_path, name)
    architecture, read = fields["general.architecture"], 0

    def config_of(fields):
        return read_gguf_config(fields, shapes, None, "x.gguf")

    config_of(fields)
    for key, value in fields.items():
        if not key.startswith(f"{architecture}.") and key != "general.architecture":
            continue
        names = ["x.gguf", key.partition(".")[2]]
        for wrong in WRONG[type(value)]:
            right = (key.endswith("_pattern") and type(wrong) is int) or wrong == value
            right |= key.endswith("ext_factor") and wrong == -1  # as the kind has it
            if isinstance(wrong, dict) or wrong in (HUGE, -HUGE) or right:
                continue  # no file can hold it, or it says what it should
            assert outcome(names, config_of, fields | {key: wrong}) is None, (key, wrong)
            read += 1
        outcome(["x.gguf"], config_of, {k: v for k, v in fields.items() if k != key})
    assert read > 70


def byte_level(path, **changes):
    """A tokenizer of llama.cpp's of four tokens, of which one is made of two."""
    fields = {
        "ggml.model": "gpt2", "ggml.pre": "gpt-2", "ggml.tokens": ["<e>", "a", "b", "ab"],
        "ggml.token_type": [3, 1, 1, 1], "ggml.merges": ["a b"], "ggml.eos_token_id": 0,
        "ggml.bos_token_id": 0, "ggml.padding_token_id": 0, "ggml.unknown_token_id": 0,
        "ggml.add_space_prefix": False, "ggml.scores": [0.0, -1.0, -2.0, -3.0],
        "chat_template": "{{ messages }}",
    }  # fmt: skip
    writer = gguf.GGUFWriter(path, "llama")
    for name, value in (fields | changes).items():
        if type(value) is int and value < 0:
            writer.add_int32(f"tokenizer.{name}", value)
        elif value is not ...:
            gguf_writer.add(writer, f"tokenizer.{name}", value)
    gguf_writer.finish(writer)
    return fields


def test_every_key_of_a_tokenizer_in_a_gguf_file(tmp_path):
    file = tmp_path / "x.gguf"
    fields, read = byte_level(file), 0
    assert load_gguf_tokenizer(file).encode("ab") == [3]
    for name, value in fields.items():
        several = [["", "", "", ""], ["a", "a", "b", "c"], ["a", "b"], [7] * 4, [0.5] * 4, [True]]
        for wrong in [7, 2**31, -1, "x", True, 0.5, NAN, [NAN] * 4, ["x" * 9999], *several]:
            if wrong == value or (type(wrong) is type(value) is str and name == "chat_template"):
                continue
            if name == "ggml.add_space_prefix" and wrong is True:
                continue  # said to be unsupported, in other words
            if name == "ggml.scores" and wrong in ([7] * 4, [0.5] * 4):
                continue
            byte_level(file, **{name: wrong})
            found = outcome(["x.gguf", name.partition(".")[2]], load_gguf_tokenizer, file)
            assert found is None, (name, wrong)
            read += 1
        byte_level(file, **{name: ...})
        outcome(["x.gguf"], load_gguf_tokenizer, file)
    assert read > 100


@pytest.mark.parametrize("kind", ["safetensors", "index", "gguf", "own"])
def test_flipped_bytes_of_headers_are_one_line_or_another_model(kind, tmp_path):
    """Every load ends, at once, and nothing but the one error comes out."""
    folder = tmp_path / "model"
    if kind == "own":
        save_text_model(folder, tiny_policy(8))
        file, load = folder / "config.json", lambda: load_own(folder)
    else:
        shutil.copytree(HF / "llama", folder)
        file, load = folder / "model.safetensors", lambda: load_folder(folder)
    if kind == "index":
        names = list(load_file(file))
        file = folder / "model.safetensors.index.json"
        file.write_text(json.dumps({"weight_map": dict.fromkeys(names, "model.safetensors")}))
    if kind == "gguf":
        file = tmp_path / "x.gguf"
        gguf_writer.convert(folder, file)
        load = lambda: load_gguf(file)  # noqa: E731
    load()
    content, rng = file.read_bytes(), random.Random(0)
    refused = 0
    for _ in range(150):
        damaged = bytearray(content)
        damaged[rng.randrange(min(len(content), 2500))] ^= 1 << rng.randrange(8)
        file.write_bytes(damaged)
        refused += outcome([str(tmp_path)], load) is None
    assert refused > 75


def test_a_family_declares_the_names_of_its_modules():
    names = LLAMA_LAYER | {"feed_forward/up": "mlp.c_fc"}
    rule = llama_rule("trunk/layers_1/feed_forward/up/kernel", layer=names)
    assert rule.name == "model.layers.1.mlp.c_fc.weight" and rule.transposed
    assert llama_rule("trunk/norm/bias").name == "model.norm.bias"


def test_a_default_that_a_family_does_not_read_is_no_error():
    Fields({}, "config.json", {"rms_norm_eps": 1e-6}).finish()
    with pytest.raises(UserError, match="rms_norm_eps = 1e-06 is not supported"):
        Fields({"rms_norm_eps": 1e-6}, "config.json").finish()
