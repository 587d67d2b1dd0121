"""Models as published: logits, loss and gradients are those of `transformers`; fields that matter
are read or refused.
"""

import json
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from benchmarks import parity
from jaxalign.errors import UserError
from jaxalign.models.transformer import Transformer
from jaxalign.pretrained.folders import load_folder
from jaxalign.pretrained.hugging_face.config import read_config
from tests.folders import FILES

HF = FILES / "hf"
CASES = {case.name: case for case in parity.cases(HF)}
SCALED = {"rope_type": "yarn", "factor": 4.0}


def test_every_model_has_a_case():
    assert len(CASES) == 13 == len([path for path in HF.iterdir() if path.is_dir()])
    assert sorted(name for name, *_ in CASES["llama3_rope"].sides()) == [
        *("left", "long", "right", "unpadded"),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_logits_loss_and_gradients_are_those_of_transformers(name):
    row = parity.compare(CASES[name], cached=name in ("gpt2", "mistral"))
    assert not row.note and not row.is_wrong, row
    assert row.errors["logits"] < 1e-5 and row.errors["loss"] < 1e-6
    assert row.errors["gradients"] < 1e-5


@pytest.mark.slow
def test_scores_are_those_of_transformers():
    """The last real token, whatever stands in the padding."""
    folder = HF.parent / "hf_reward"
    config, params = load_folder(folder)
    expected = np.load(folder / "expected.npz")
    ids, mask = expected["right_ids"].astype(np.int32), expected["right_mask"].astype(bool)
    assert config.heads_out == ("score",) and config.score_pooling == "last"
    model = Transformer(config)
    for padding in (0, 7):
        outputs = model.apply({"params": params}, np.where(mask, ids, padding), mask)
        np.testing.assert_allclose(outputs.scores, expected["scores"], rtol=0, atol=1e-6)


def test_a_difference_is_found():
    case = CASES["llama"]
    wrong = dict(case.outputs)
    wrong["logits_left"] = wrong["logits_left"] + np.float32(2e-4)
    row = parity.compare(parity.dataclasses.replace(case, outputs=wrong), cached=False)
    assert row.is_wrong and row.flips == 0
    wrong["logits_left"] = -case.outputs["logits_left"]
    row = parity.compare(parity.dataclasses.replace(case, outputs=wrong), cached=False)
    assert row.flips > 10


def test_numbers_that_are_none_are_wrong():
    case, broken = CASES["llama"], {}
    broken["logits_unpadded"] = np.full_like(case.outputs["logits_unpadded"], np.nan)
    row = parity.compare(
        parity.dataclasses.replace(
            case, outputs=broken | {"logits_left": case.outputs["logits_left"]}
        ),
        cached=False,
    )
    assert row.is_wrong


def test_models_without_a_case_are_named_and_links_are_followed(tmp_path, capsys):
    models = write_cases(tmp_path / "models", "llama", num_experts=4)
    (models / "hf" / "llama").rename(tmp_path / "elsewhere")
    (models / "hf" / "llama").symlink_to(tmp_path / "elsewhere")
    shutil.copytree(HF / "gpt2", models / "another")
    assert parity.run(models) == 1
    assert "no manifest has logits of another" in capsys.readouterr().out


def test_a_refused_model_is_wrong_unless_the_manifest_says_so(tmp_path):
    models = write_cases(tmp_path / "models", "llama", num_experts=4)
    assert parity.run(models) == 1
    manifest = json.loads((models / "cases.json").read_text())
    manifest["cases"][0]["refused"] = True
    (models / "cases.json").write_text(json.dumps(manifest))
    assert parity.run(models, tmp_path / "page.md") == 0
    assert "num_experts = 4 is not supported" in (tmp_path / "page.md").read_text()
    assert parity.run(tmp_path / "nothing") == 2


def write_cases(folder, name, **fields):
    """A folder with one model, its `config.json` changed, and a manifest above its own folder."""
    shutil.copytree(HF / name, folder / "hf" / name)
    change(folder / "hf" / name, **fields)
    manifest = json.loads((HF / "hf_logits.json").read_text())
    manifest["cases"] = [case for case in manifest["cases"] if case["id"] == name]
    (folder / "cases.json").write_text(json.dumps(manifest))
    shutil.copy(HF / "hf_logits.npz", folder)
    return folder


def change(folder, **fields):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def config_with(name, remove=(), **fields):
    content = json.loads((HF / name / "config.json").read_text()) | fields
    return read_config({k: v for k, v in content.items() if k not in remove}, "config.json")


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("llama", {"model_type": "mamba"}),
        ("llama", {"num_experts": 8}),
        ("llama", {"quantization_config": {"bits": 4}}),
        ("llama", {"hidden_act": "mish"}),
        ("llama", {"hidden_size": "48"}),
        ("llama", {"num_hidden_layers": 0}),
        ("llama", {"num_attention_heads": None}),
        ("llama", {"tie_word_embeddings": 1}),
        ("llama", {"rope_scaling": {"type": "longrope", "factor": 2.0, "long_factor": [1.0]}}),
        ("llama", {"rope_scaling": {"type": "linear"}}),
        ("llama", {"rope_scaling": [2.0]}),
        ("llama", {"rope_scaling": SCALED | {"surprise": 1}}),
        ("llama", {"partial_rotary_factor": 0.5}),
        ("llama", {"is_causal": False}),
        ("llama", {"rope_theta": "10000"}),
        ("llama", {"num_key_value_heads": "2"}),
        ("mistral", {"sliding_window": 0}),
        ("mistral", {"layer_types": ["full_attention", "sliding_attention"]}),
        ("qwen3", {"layer_types": ["sliding_attention"] * 2}),
        ("qwen3", {"layer_types": ["full_attention"]}),
        ("qwen3", {"layer_types": ["full_attention", "chunked_attention"]}),
        ("gemma2", {"sliding_window": None}),
        ("gemma2", {"use_bidirectional_attention": True}),
        ("gemma2", {"sliding_window_size": 6}),
        ("gemma3", {"sliding_window_pattern": 0}),
        ("gemma3", {"rope_parameters": {"rope_type": "default", "rope_theta": 300.0}}),
        ("gpt2", {"add_cross_attention": True}),
        ("gpt2", {"activation_function": "relu2"}),
    ],
)
def test_what_matters_and_is_not_supported_is_named(name, fields):
    named = "layer_types" if fields == {"sliding_window": None} else next(iter(fields))
    with pytest.raises(UserError, match=named):
        config_with(name, **fields)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("gpt2", {"predict_special_tokens": True, "output_past": True, "_num_labels": 1}),
        ("gpt2", {"is_decoder": True, "finetuning_task": None, "gradient_checkpointing": True}),
        ("llama", {"unsloth_fixed": True, "unsloth_version": "2025.1", "is_causal": True}),
        ("llama", {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "max_length": 4096}),
        ("llama", {"partial_rotary_factor": 1.0, "id2label": None}),
        ("gemma2", {"sliding_window_size": 5}),
    ],
)
def test_what_published_files_also_say_changes_nothing(name, fields):
    assert config_with(name, **fields) == config_with(name)


def test_fields_that_are_missing_are_those_of_the_class():
    removed = ("hidden_act", "tie_word_embeddings", "rope_parameters", "max_position_embeddings")
    config = config_with("llama", remove=(*removed, "num_key_value_heads", "rms_norm_eps"))
    assert (config.activation, config.tie_embeddings, config.rope_theta) == ("swiglu", False, 1e4)
    assert (config.max_length, config.kv_heads, config.norm_epsilon) == (2048, 4, 1e-6)
    config = config_with("mistral", remove=("sliding_window", "num_key_value_heads"),
                         num_attention_heads=16)  # fmt: skip
    assert (config.windows, config.kv_heads) == ((4096, 4096), 8)
    assert config_with("mistral", num_key_value_heads=None).kv_heads == 4  # null: one a query head
    config = config_with("gemma3", remove=("layer_types", "rope_parameters"), num_hidden_layers=7)
    assert config.windows == (5, 5, 5, 5, 5, 0, 5)
    assert (config.rope_theta, config.window_rope_theta) == (1e6, 1e4)
    assert config_with("gpt2", remove=("n_embd",), hidden_size=40).width == 40


def test_the_older_spelling_of_rotary_positions_is_the_same():
    new = config_with("llama3_rope")
    stretch = {"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0}
    old = {"rope_theta": 500.0, "rope_scaling": stretch | {"type": "llama3"}}
    old["original_max_position_embeddings"] = 32
    assert config_with("llama3_rope", remove=("rope_parameters",), **old) == new
    assert new.rope_scaling.original_length == 32
    scaled = {"rope_scaling": SCALED | {"mscale": 0.5, "mscale_all_dim": 2.0}}
    # (0.1 x 0.5 log 4 + 1) / (0.1 x 2 log 4 + 1) = 1.0693147 / 1.2772589; length 64 from the model
    scaling = config_with("llama", **scaled).rope_scaling
    assert scaling.amplitude == pytest.approx(0.8371950, abs=1e-7)
    assert scaling.original_length == 64


def test_dynamic_stretching_starts_where_the_model_ends():
    plain = config_with("llama")
    dynamic = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    assert config_with("llama", rope_parameters=dynamic) == plain


def copy_of(name, folder):
    shutil.copytree(HF / name, folder)
    return folder, load_file(HF / name / "model.safetensors")


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16])
def test_half_precision_becomes_float32(tmp_path, dtype):
    folder, tensors = copy_of("gpt2", tmp_path / "model")
    save_file({k: v.astype(dtype) for k, v in tensors.items()}, folder / "model.safetensors")
    _, params = load_folder(folder)
    embedding = params["trunk"]["embedding"]
    assert embedding.dtype == np.float32
    given = tensors["transformer.wte.weight"]
    np.testing.assert_array_equal(embedding, given.astype(dtype).astype(np.float32))


def test_gemma_norms_are_read_as_one_more(tmp_path):
    _, params = load_folder(HF / "gemma2")
    stored = load_file(HF / "gemma2" / "model.safetensors")["model.norm.weight"]
    np.testing.assert_array_equal(params["trunk"]["norm"]["scale"], stored + np.float32(1))


def test_one_file_beside_the_index_of_another_model(tmp_path):
    """transformers leaves the index where it writes a folder again in one file, and removes its
    files: what they hold may be another model while they are there.
    """
    folder, tensors = copy_of("qwen2", tmp_path / "model")
    save_file({name: 0 * x for name, x in tensors.items()}, folder / "old.safetensors")
    index = {"weight_map": dict.fromkeys(tensors, "old.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"which names old.safetensors, may be two models; take"):
        load_folder(folder)
    (folder / "old.safetensors").unlink()
    np.testing.assert_array_equal(
        load_folder(folder)[1]["trunk"]["embedding"], tensors["model.embed_tokens.weight"]
    )


def test_models_without_head_and_in_pieces_are_read(tmp_path):
    folder, tensors = copy_of("qwen2", tmp_path / "model")
    bare = {name.removeprefix("model."): x for name, x in tensors.items()}
    names = sorted(bare)
    files = {"a.safetensors": names[:5], "b.safetensors": names[5:]}
    for file, part in files.items():
        save_file({name: bare[name] for name in part}, folder / file)
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {name: file for file, part in files.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    _, params = load_folder(folder)
    for ours, theirs in zip(
        *(parity.jax.tree.leaves(p) for p in (params, load_folder(HF / "qwen2")[1])), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    index["weight_map"]["norm.weight"] = "../b.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"names '../b.safetensors', which is no file beside it"):
        load_folder(folder)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda t: t.pop("model.norm.weight"), "no tensor model.norm.weight"),
        (
            lambda t: t.update(extra=t["model.norm.weight"]),
            r"tensor extra \(of 1\) is no",
        ),
        (
            lambda t: t.update({"model.norm.weight": np.ones(3, np.float32)}),
            r"model.norm.weight has the shape \(3,\), the configuration wants \(48,\)",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path, change, line):
    folder, tensors = copy_of("llama", tmp_path / "model")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(UserError, match=line):
        load_folder(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pt", "model.ckpt"])
def test_a_folder_of_pickles_is_refused_unread(tmp_path, name):
    folder, _ = copy_of("llama", tmp_path / "model")
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    with pytest.raises(UserError, match=rf"{name}: reading such a file can run code") as refusal:
        load_folder(folder)
    assert "\n" not in str(refusal.value) and not Path("ran").exists()


def test_a_length_of_millions_allocates_nothing(tmp_path):
    folder, _ = copy_of("llama", tmp_path / "model")
    change(folder, max_position_embeddings=2**30)
    config, params = load_folder(folder)
    ids, mask = np.ones((1, 3), np.int32), np.ones((1, 3), bool)
    assert config.max_length == 2**30
    assert parity.forward(Transformer(config), params, ids, mask).shape == (1, 3, 199)
