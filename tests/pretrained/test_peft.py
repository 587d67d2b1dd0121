"""Adapters in PEFT's format: what PEFT computes with them, and folders as PEFT writes them."""

import functools
import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxalign.errors import UserError
from jaxalign.models.lora import ADAPTERS, Adapted, merged
from jaxalign.models.transformer import Transformer
from jaxalign.pretrained.folders import load_folder
from jaxalign.pretrained.peft import load_adapter, save_adapter
from tests.folders import FILES

DATA = FILES / "peft"
FOLDERS = ("llama_plain", "llama_patterns", "gpt2_joint")


@functools.cache
def base_of(folder):
    return load_folder(DATA / folder.partition("_")[0])


def golden(folder):
    """Base, adapter, and the logits in float64 that PEFT computes of these tokens with the two."""
    config, params = base_of(folder)
    model = Adapted(transformer=Transformer(config), scale=1.5)
    adapters = load_adapter(DATA / folder, params, config, scale=model.scale)
    stored = np.load(DATA / folder / "logits.npz")
    return model, params, adapters, stored["tokens"].astype(np.int32), stored["logits"]


@pytest.mark.slow
@pytest.mark.parametrize("folder", FOLDERS)
def test_logits_are_those_of_peft(folder):
    """Logits are sums of 8 products after 2 layers of float32: 1e-6 of their size, which is 6; the
    adapters change them by more than 0.5 everywhere."""
    model, params, adapters, tokens, expected = golden(folder)
    mask = np.ones_like(tokens, bool)
    applied = model.apply({"params": params | {ADAPTERS: adapters}}, tokens, mask).logits
    np.testing.assert_allclose(applied, expected, atol=3e-5)
    plain = model.apply({"params": params}, tokens, mask).logits
    assert np.abs(plain - expected).max(axis=(1, 2)).min() > 0.5
    whole, weights = merged(model, params | {ADAPTERS: adapters})
    outputs = whole.apply({"params": weights}, tokens, mask)
    np.testing.assert_allclose(outputs.logits, expected, atol=3e-5)


def test_a_folder_written_back_is_the_one_that_was_read(tmp_path):
    model, params, adapters, *_ = golden("llama_plain")
    save_adapter(tmp_path, model, params | {ADAPTERS: adapters})
    ours, theirs = (
        load_file(x / "adapter_model.safetensors") for x in (tmp_path, DATA / "llama_plain")
    )
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        np.testing.assert_array_equal(ours[name], tensor)
    ours, theirs = (
        json.loads((x / "adapter_config.json").read_text())
        for x in (tmp_path, DATA / "llama_plain")
    )
    assert set(ours.pop("target_modules")) == set(theirs["target_modules"])
    assert {name: theirs[name] for name in ours} == ours


def test_three_adapters_of_gpt2_are_one_in_blocks(tmp_path):
    """What goes out as one adapter of rank 6 comes back as three of rank 2."""
    model, params, adapters, *_ = golden("gpt2_joint")
    rng = np.random.default_rng(0)
    for layer in adapters["trunk"].values():
        for name in ("query", "value"):  # the key keeps the A that all three share in the folder
            layer["attention"][name]["a"] = rng.normal(size=(8, 2)).astype(np.float32)
    save_adapter(tmp_path, model, params | {ADAPTERS: adapters})
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    joint = tensors["base_model.model.transformer.h.1.attn.c_attn.lora_B.weight"]
    assert joint.shape == (24, 6)
    assert (
        not joint[:8, 2:].any() and not joint[8:16, [0, 1, 4, 5]].any() and joint[8:16, 2:4].all()
    )
    again = load_adapter(tmp_path, params, model.config, scale=model.scale)
    for name in ("query", "key", "value"):
        for part in "ab":
            expected = adapters["trunk"]["layers_1"]["attention"][name][part]
            np.testing.assert_array_equal(
                again["trunk"]["layers_1"]["attention"][name][part], expected
            )


def test_adapters_of_some_layers_are_named_one_by_one(tmp_path):
    model, params, adapters, *_ = golden("llama_plain")
    del adapters["trunk"]["layers_0"]["attention"]["query"]
    save_adapter(tmp_path, model, params | {ADAPTERS: adapters})
    names = json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"]
    assert "model.layers.1.self_attn.q_proj" in names and "q_proj" not in names
    assert "k_proj" in names


CHANGES = {  # field: (value, the words of the error)
    "use_dora": (True, "use_dora = True is not supported"),
    "bias": ("lora_only", "bias = 'lora_only' is not supported"),
    "modules_to_save": (["lm_head"], "modules_to_save"),
    "init_lora_weights": ("pissa", "init_lora_weights = 'pissa'"),
    "peft_type": ("ADALORA", "peft_type = 'ADALORA'"),
    "lora_bias": (True, "lora_bias"),
    "target_parameters": (["experts"], "target_parameters"),
    "something_new": (3, "something_new = 3"),
}


@pytest.mark.parametrize("field", CHANGES)
def test_more_than_lora_is_refused_by_name(tmp_path, field):
    folder = shutil.copytree(DATA / "llama_plain", tmp_path / "adapter")
    file = folder / "adapter_config.json"
    value, words = CHANGES[field]
    file.write_text(json.dumps(json.loads(file.read_text()) | {field: value}))
    config, params = base_of("llama_plain")
    with pytest.raises(UserError, match=words):
        load_adapter(folder, params, config, scale=1.0)


def test_tensors_that_do_not_fit_are_refused(tmp_path):
    config, params = base_of("llama_plain")
    with pytest.raises(UserError, match=r"tensor .*transformer\.h\.0.* belongs to no adapter"):
        load_adapter(DATA / "gpt2_joint", params, config, scale=1.0)
    with pytest.raises(UserError, match=r"adapter_config\.json does not exist"):
        load_adapter(tmp_path, params, config, scale=1.0)
    folder = shutil.copytree(DATA / "llama_plain", tmp_path / "adapter")
    tensors = load_file(folder / "adapter_model.safetensors")
    name = "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight"
    file = folder / "adapter_model.safetensors"
    save_file(tensors | {name: np.zeros((2, 9), np.float32)}, file)
    with pytest.raises(UserError, match=r"up_proj.* shapes \(2, 9\) and .* has 8 inputs"):
        load_adapter(folder, params, config, scale=1.0)
    del tensors[name]
    save_file(tensors, file)
    with pytest.raises(UserError, match=r"no tensor .*layers\.0\.mlp\.up_proj\.lora_A\.weight"):
        load_adapter(folder, params, config, scale=1.0)
    file.unlink()
    (folder / "adapter_model.bin").touch()
    with pytest.raises(UserError, match=r"adapter_model\.bin: reading such a file can run code"):
        load_adapter(folder, params, config, scale=1.0)
