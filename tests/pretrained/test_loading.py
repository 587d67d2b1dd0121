"""Parameters go from the file to where they are used, one at a time."""

import dataclasses
import shutil
import weakref

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from jaxalign.config.model import ModelConfig
from jaxalign.config.place import PlaceConfig
from jaxalign.data.tokenizer_training import train_bpe
from jaxalign.models.ngram_reward import NgramConfig, spelling
from jaxalign.pretrained.folders import load_folder, open_tensors
from jaxalign.pretrained.hugging_face.names import parameters_of_tensors
from jaxalign.pretrained.weights import nested_parameters
from jaxalign.recipes.reward import token_texts
from jaxalign.recipes.text_models import (
    TextModel,
    load_text_model,
    new_parameters,
    new_text_model,
    save_text_model,
    with_heads,
)
from tests.folders import FILES

HF = FILES / "hf"
MESH = PlaceConfig(layout="mesh")


@pytest.fixture(scope="module")
def small():
    return train_bpe(["a b"], 260)


@pytest.fixture(scope="module")
def saved(tmp_path_factory, small):
    """A run's model: 264 x 16 embedding, so that all but norms split over 8 devices."""
    from jaxalign.models.transformer import Transformer, TransformerConfig

    config = TransformerConfig(
        vocab_size=264, max_length=16, width=16, layers=1, heads=2, kv_heads=2, mlp_width=24
    )
    model = Transformer(config)
    folder = tmp_path_factory.mktemp("run")
    params = new_parameters(model, jax.random.key(0))
    save_text_model(folder, TextModel(model=model, params=params, tokenizer=small))
    return folder


def test_never_more_than_one_tensor_is_on_the_host():
    config, _ = load_folder(HF / "llama")
    read: list[weakref.ref] = []
    alive = []
    with open_tensors(HF / "llama") as weights:

        def watched(name, rows):
            alive.append(sum(ref() is not None for ref in read))
            array = weights.rows(name, rows)
            read.append(weakref.ref(array))
            return array

        watched = dataclasses.replace(weights, rows=watched)
        nested_parameters(parameters_of_tensors(config, "llama", watched), lambda a: a.shape)
    assert len(alive) == 21 and set(alive) == {0}


def test_on_a_mesh_every_parameter_lies_in_parts_on_all_devices(saved):
    whole = load_text_model(saved, "model")
    parts = load_text_model(saved, "model", place=MESH)
    embedding = parts.params["trunk"]["embedding"]
    assert embedding.sharding.spec == PartitionSpec("data") and len(embedding.devices()) == 8
    assert {shard.data.shape for shard in embedding.addressable_shards} == {(33, 16)}
    up = parts.params["trunk"]["layers_0"]["feed_forward"]["up"]["kernel"]
    assert {shard.data.shape for shard in up.addressable_shards} == {(16, 3)}
    for ours, theirs in zip(*map(jax.tree.leaves, (parts.params, whole.params)), strict=True):
        assert isinstance(ours, jax.Array) and isinstance(theirs, np.ndarray)
        np.testing.assert_array_equal(ours, theirs)


def test_a_published_model_goes_onto_a_mesh_too(small, tmp_path):
    from jaxalign.commands.export import write_folder

    config, params = load_folder(HF / "gpt2")
    from jaxalign.models.transformer import Transformer

    write_folder(
        tmp_path,
        TextModel(model=Transformer(config), params=params, tokenizer=small),
        shard_bytes=10**9,
    )
    fields = (tmp_path / "config.json").read_text()
    assert '"vocab_size": 199' in fields  # the tokenizer of 260 ids would not fit
    from jaxalign.layouts.choice import make_layout

    _, placed_params = load_folder(tmp_path, put=make_layout("mesh").put)
    leaves = zip(*map(jax.tree.leaves, (placed_params, params)), strict=True)
    assert all(np.array_equal(a, b) and len(a.devices()) == 8 for a, b in leaves)


@pytest.mark.parametrize("layout", ["device", "pmap", "shards"])
def test_elsewhere_parameters_stay_on_the_host(saved, layout):
    loaded = load_text_model(saved, "model", place=PlaceConfig(layout=layout))
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(loaded.params))


@pytest.mark.slow
def test_new_heads_are_all_that_is_made(saved, monkeypatch):
    loaded = load_text_model(saved, "model", place=MESH)
    key = jax.random.key(7)
    more = with_heads(loaded, ("logits", "value"), key)
    assert more.params["trunk"] is loaded.params["trunk"]
    assert more.params["value"]["readout"]["kernel"].shape == (16, 1)
    scored = with_heads(loaded, ("score",), key)
    fresh = new_parameters(scored.model, key)  # all of it, of which the head is the same
    np.testing.assert_array_equal(
        scored.params["score"]["readout"]["kernel"], fresh["score"]["readout"]["kernel"]
    )
    back = with_heads(more, ("logits",), key, dropout=0.5)
    assert set(back.params) == {"trunk"} and back.model.config.dropout == 0.5


def test_what_the_tokenizer_lacks_is_spelled_as_nothing(small):
    codes = spelling(token_texts(small), longest=3, vocab_size=small.vocab_size + 4)
    assert codes.shape == (small.vocab_size + 4, 3) and not codes[-4:].any()
    letter = small.encode("b")[0]
    assert codes[letter].tolist() == [ord("b"), 0, 0]


def test_a_model_and_a_tokenizer_need_each_other(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "model")
    (tmp_path / "model" / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"--policy: no tokenizer at .*tokenizer.json"):
        load_text_model(tmp_path, "policy")


@pytest.mark.slow
def test_a_bag_of_words_is_read_as_it_was_written(tmp_path, small):
    """Its bias has no axes."""
    config = ModelConfig(width=16, layers=1, heads=2, dropout=0.0)
    policy = new_text_model(config, small, jax.random.key(0), max_length=16)
    read = NgramConfig(hidden_states=False, token_characters=2, buckets=8)
    scored = with_heads(policy, ("score",), jax.random.key(1), ngrams=read)
    save_text_model(tmp_path, scored)
    loaded = load_text_model(tmp_path, "reward", head="score")
    assert loaded.model.ngrams == read
    jax.tree.map(np.testing.assert_array_equal, loaded.params, scored.params)
    assert any(np.ndim(leaf) == 0 for leaf in jax.tree.leaves(loaded.params["score"]))
