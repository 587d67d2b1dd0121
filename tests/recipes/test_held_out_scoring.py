"""Held-out loss from one scoring pass: the numbers of the loss on the model itself."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxalign import objectives
from jaxalign.config.dpo import DPOSettings
from jaxalign.config.kto import KTOSettings
from jaxalign.config.place import PlaceConfig
from jaxalign.config.sft import SFTConfig
from jaxalign.data.batching import token_batch
from jaxalign.data.chat import token_row
from jaxalign.data.preference_batches import preference_batch, ranking_batch
from jaxalign.models.functions import text_logps, text_logps_and_likeliest, text_scores
from jaxalign.recipes.held_out import (
    HeldOut,
    TokenScores,
    WholeScores,
    held_out_evaluation,
    scored_evaluation,
)
from jaxalign.recipes.preferences import (
    LabelledBatches,
    PairBatches,
    pair_objective,
    unpaired_objective,
)
from jaxalign.recipes.run import open_run
from jaxalign.recipes.scoring import response_logps
from jaxalign.recipes.text_models import with_heads
from jaxalign.train.step import initial_state
from tests.tiny_models import tiny_policy

PLACE = PlaceConfig(layout="device")


@pytest.fixture
def run(tmp_path):
    with open_run(tmp_path, SFTConfig(place=PLACE), PLACE, 0, inputs={}) as run:
        yield run


def pairs_of(count, sides=2, seed=0):
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(count):
        prompt = rng.integers(3, 200, rng.integers(1, 9))
        responses = [rng.integers(3, 200, rng.integers(1, 20)) for _ in range(sides)]
        pairs.append(tuple(token_row((prompt, False), (r, True)) for r in responses))
    return pairs


def without_noise(read):
    return lambda params, rows, keys=None, *rest: read(params, rows, None, *rest)


def both(run, policy, make_loss, reads, held_out, score, statistics=None):
    """Metrics of the loss on the model, and of the loss on its outputs of one pass."""
    import optax

    state = initial_state(policy.params, optax.sgd(0.1), jax.random.key(0), statistics=statistics)
    expected = held_out_evaluation(run, make_loss(without_noise(reads)), held_out)
    found = scored_evaluation(run, make_loss, held_out, score)
    assert found.every == held_out.every
    return expected.metrics(state), found.metrics(state)


def agree(pair):
    expected, found = pair
    assert expected.keys() == found.keys() and len(found) > 1
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=2e-5, atol=2e-5, err_msg=name)


SETTINGS = {
    "dpo": DPOSettings(),
    "ld": DPOSettings(ld_alpha=0.3),
    "wpo": DPOSettings(wpo=True),
    "simpo": DPOSettings(loss="simpo"),
    "bco_pair": DPOSettings(loss="bco_pair"),
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_pairs(run, kind):
    policy, settings = tiny_policy(64), SETTINGS[kind]
    policy = dataclasses.replace(policy)

    def score(rows, temperature):
        # another reference, so that log-ratios are not 0
        return 0.9 * response_logps(run, policy, rows, temperature=temperature) - 1

    batch = PairBatches(
        score=score, pairs=pairs_of(7), settings=settings, temperature=0.7, pad_id=0
    )
    objective = pair_objective(policy, settings, temperature=0.7)
    held_out = HeldOut(batch=batch, rows=7, size=3, every=None)
    scores = TokenScores(run=run, model=policy, read=objective.read)
    pair = both(
        run, policy, objective.make_loss, objective.read, held_out, scores, objective.statistics
    )
    agree(pair)
    assert len(scores.last) == 14


def test_labelled_responses_and_mismatched_ones(run):
    policy, settings = tiny_policy(64), KTOSettings()
    rows = [row for pair in pairs_of(3) for row in pair]

    def score(texts, temperature):
        return 0.9 * response_logps(run, policy, texts, temperature=temperature)

    batch = LabelledBatches(
        score=score,
        rows=rows,
        labels=[True, False] * 3,
        settings=settings,
        temperature=1.0,
        pad_id=0,
    )
    objective = unpaired_objective(policy, settings, temperature=1.0)
    held_out = HeldOut(batch=batch, rows=6, size=4, every=None)
    scores = TokenScores(run=run, model=policy, read=text_logps(policy.model))
    agree(both(run, policy, objective.make_loss, objective.read, held_out, scores))


def test_texts_with_the_likeliest_tokens(run):
    policy = tiny_policy(64)
    rows = [pair[0] for pair in pairs_of(9)]

    def batch(index):
        return token_batch([rows[i] for i in index], pad_id=0, length=30, index=index)

    read = text_logps_and_likeliest(policy.model)
    scores = TokenScores(run=run, model=policy, read=read)
    held_out = HeldOut(batch=batch, rows=9, size=4, every=5)
    agree(both(run, policy, objectives.sft, read, held_out, scores))


def test_scores_of_rankings_of_different_sizes(run):
    from jaxalign.losses.plackett_luce import PLACKETT_LUCE

    model = with_heads(tiny_policy(64), ("score",), jax.random.key(3))
    head = jax.tree.map(lambda x: np.full(x.shape, 0.1, x.dtype), model.params["score"])
    model = dataclasses.replace(model, params={**model.params, "score": head})
    groups = [pair[: 2 + number % 2] for number, pair in enumerate(pairs_of(5, sides=3))]

    def batch(index):
        return ranking_batch([groups[i] for i in index], pad_id=0, size=3, length=40)

    def make_loss(read):
        return objectives.ranking(read, PLACKETT_LUCE)

    read = text_scores(model.model)
    held_out = HeldOut(batch=batch, rows=5, size=2, every=None)
    agree(both(run, model, make_loss, read, held_out, WholeScores(run=run, model=model)))


def test_what_was_computed_of_the_last_state_is_known_and_of_no_other(run):
    policy, rows = tiny_policy(64), [pair[0] for pair in pairs_of(4)]
    fresh = response_logps(run, policy, rows)
    read = text_logps(policy.model)
    scores = TokenScores(run=run, model=policy, read=read)
    scores(policy.params, rows)
    logps = {key: value + 1 for key, value in scores.last.items()}  # to tell them apart
    known = policy.knowing(logps, ("logps", 1.0))
    counts = np.array([row.is_response.sum() for row in rows])
    np.testing.assert_allclose(response_logps(run, known, rows), fresh + counts, rtol=1e-5)
    others = [pair[1] for pair in pairs_of(4)]
    mixed = response_logps(run, known, [*rows[:2], *others])
    np.testing.assert_allclose(mixed[2:], response_logps(run, policy, others), rtol=1e-5)
    elsewhere = dataclasses.replace(known, params=dict(policy.params))
    np.testing.assert_allclose(response_logps(run, elsewhere, rows), fresh, rtol=1e-5)
    warmer = response_logps(run, known, rows, temperature=2.0)
    np.testing.assert_allclose(warmer, response_logps(run, policy, rows, temperature=2.0))


def test_a_batch_needs_no_preference_of_shared_prompts(run):
    policy, pairs = tiny_policy(64), pairs_of(5)
    settings = DPOSettings(loss="simpo")
    objective = pair_objective(policy, settings, temperature=1.0)

    def batch(index):
        sides = zip(*(pairs[i] for i in index), strict=True)
        return preference_batch(*sides, pad_id=0, length=40, index=index)

    held_out = HeldOut(batch=batch, rows=5, size=2, every=None)
    scores = TokenScores(run=run, model=policy, read=objective.read)
    agree(both(run, policy, objective.make_loss, objective.read, held_out, scores))
