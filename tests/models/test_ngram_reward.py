"""The n-gram reward model against loops: features, idf, and what of it is never trained."""

import dataclasses
import functools
import json

import jax
import numpy as np
import optax
import pytest

from jaxalign.errors import UserError
from jaxalign.models.lora import split
from jaxalign.models.ngram_reward import FEATURES, NgramConfig, inverse_document_frequency
from jaxalign.models.transformer import Transformer, TransformerConfig
from jaxalign.pretrained.folders import load_own, model_of
from jaxalign.recipes.reward import count_texts
from jaxalign.train.checkpoints import save_model
from jaxalign.train.optimizers import make_optimizer
from jaxalign.train.step import initial_state, train_step
from tests.oracles import transformer as oracle
from tests.tiny_models import random_parameters

LENGTH = 7
CONFIG = TransformerConfig(
    vocab_size=23, max_length=16, width=16, layers=2, heads=4, kv_heads=2, heads_out=("score",)
)
NGRAMS = NgramConfig(token_characters=3, buckets=101)
ALONE = dataclasses.replace(NGRAMS, hidden_states=False, power=0.4)


def texts():
    tokens = np.random.default_rng(0).integers(0, CONFIG.vocab_size, (3, LENGTH)).astype(np.int32)
    mask = np.ones(tokens.shape, bool)
    mask[1:, 4:] = False
    return tokens, mask


@functools.partial(jax.jit, static_argnums=0)
def scores_by(model, params, tokens, mask):
    """What the model makes of the texts."""
    return model.apply({"params": params}, tokens, mask).scores


@pytest.mark.parametrize("read", [ALONE, dataclasses.replace(ALONE, token_characters=0)])
def test_a_model_of_ngrams_alone_agrees_with_loops(read):
    """Whatever stands in the trunk, and on padding."""
    model = Transformer(CONFIG, ngrams=read)
    params = random_parameters(model)
    tokens, mask = texts()
    scores = scores_by(model, params, tokens, mask)
    for score, row, n in zip(scores, tokens, mask.sum(axis=1), strict=True):
        expected = oracle.ngram_sum(row[:n], params["score"], params[FEATURES], read.power)
        np.testing.assert_allclose(score, params["score"]["bias"] + expected, atol=1e-5)


def test_ngrams_are_added_to_the_readout_of_hidden_states():
    both, plain = Transformer(CONFIG, ngrams=NGRAMS), Transformer(CONFIG)
    params = random_parameters(both)
    tokens, mask = texts()
    with_ngrams = scores_by(both, params, tokens, mask)
    readout = {"trunk": params["trunk"], "score": {"readout": params["score"]["readout"]}}
    without = scores_by(plain, readout, tokens, mask)
    for row in range(3):
        text = tokens[row][mask[row]]
        expected = oracle.ngram_sum(text, params["score"], params[FEATURES], NGRAMS.power)
        np.testing.assert_allclose(with_ngrams[row] - without[row], expected, atol=1e-4)


def test_inverse_document_frequencies_by_hand():
    """Of three texts two have token 4 (once or twice), one has token 7, none token 0."""
    ids = np.array([[4, 4, 9], [7, 4, 9], [1, 2, 3]])
    counts = {"unigrams": np.zeros(10)}
    count_texts(counts, {"unigrams": (ids, ids != 9)}, 3)
    count_texts(counts, {"unigrams": (ids, ids == 9)}, 0)  # rows of padding count for nothing
    idf = inverse_document_frequency(counts["unigrams"], 3)
    expected = {4: np.log(4 / 3) + 1, 7: np.log(4 / 2) + 1, 9: np.log(4) + 1, 0: np.log(4) + 1}
    for token, wanted in expected.items():
        assert idf[token] == pytest.approx(wanted, rel=1e-6)


@pytest.mark.slow
def test_weight_decay_leaves_idf_and_spelling_alone():
    model = Transformer(CONFIG, ngrams=NGRAMS)
    params, frozen = split(model, random_parameters(model))
    assert (
        params.keys() == {"score", "trunk"} and frozen is not None and frozen.keys() == {FEATURES}
    )
    tokens, mask = texts()

    def loss(params, batch, key):
        scores = model.apply({"params": params}, *batch).scores
        return (scores**2).sum(), (np.float32(3), {})

    optimizer = make_optimizer(learning_rate=0.1, weight_decay=0.5, total_steps=1)
    state = initial_state(params, optimizer, jax.random.key(0), frozen=frozen)
    after, _ = jax.jit(lambda s, b: train_step(s, b, loss_fn=loss, optimizer=optimizer))(
        state, (tokens, mask)
    )
    jax.tree.map(np.testing.assert_array_equal, after.frozen, frozen)
    changed = optax.tree.norm(jax.tree.map(np.subtract, after.params["score"], params["score"]))
    assert changed > 0.1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"score_bag": True}, "config.json: score_bag: a reward model of an earlier version"),
        ({"ngrams": {"bucket": 3}}, "ngrams: unknown field 'bucket'; the nearest is buckets"),
        ({"ngrams": {"buckets": 0}}, "buckets must be a whole number from 1 to"),
        ({"ngrams": 3}, "ngrams: Expected `object`"),
        ({"ngrams": {}, "heads_out": ["logits"]}, "what a score reads, and heads_out names no"),
    ],
)
def test_a_description_that_is_none_is_one_line(fields, message):
    with pytest.raises(UserError, match=message):
        model_of(dataclasses.asdict(CONFIG) | fields, "config.json")


def test_a_policy_of_an_earlier_version_is_read(tmp_path):
    """Its configuration says that it has no bag of tokens."""
    model = Transformer(CONFIG)
    params = random_parameters(model)
    earlier = {"score_bag": False, "score_characters": 0, "score_bag_buckets": 262144}
    save_model(tmp_path, params, json.loads(json.dumps(dataclasses.asdict(CONFIG))) | earlier)
    loaded, weights = load_own(tmp_path)
    assert loaded == model
    jax.tree.map(np.testing.assert_array_equal, weights, params)
