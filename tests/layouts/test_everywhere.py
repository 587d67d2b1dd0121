"""The same batch and the same update on 1, 2 or 8 devices, whatever the micro-batches."""

import dataclasses
import functools
import itertools
from typing import Any

import jax
import numpy as np
import optax
import pytest

from jaxalign import objectives
from jaxalign.batches.preferences import PairLogps
from jaxalign.config.grpo import GRPOSettings
from jaxalign.config.model import ModelConfig
from jaxalign.config.place import PlaceConfig
from jaxalign.data.chat import token_row
from jaxalign.data.preference_batches import (
    comparison_batch,
    ranking_batch,
    shared_preference_batch,
    step_batch,
    unpaired_batch,
)
from jaxalign.data.shared_prompts import shared_lengths
from jaxalign.losses import AOT, AVERAGED_IPO, DPO, KTO
from jaxalign.recipes.grpo import shared_responses
from jaxalign.recipes.run import open_run
from jaxalign.recipes.text_batches import bucketed_batches, packed_batches
from jaxalign.train.epochs import minibatch_rows
from jaxalign.train.step import initial_state, train_step

DEVICES, PARTS = (1, 2, 8), (1, 2, 3)
START = {"w": np.linspace(-1, 1, 12, dtype=np.float32)}
RATE = optax.sgd(0.3)


def texts(count: int, seed: int = 0) -> list:
    """Rows of 3 to 24 tokens."""
    rng = np.random.default_rng(seed)
    return [
        token_row(([1], False), (rng.integers(2, 11, size).tolist(), True))
        for size in rng.integers(2, 24, count)
    ]


def test_buckets_know_nothing_of_where_they_are_computed():
    """What a batch holds is a function of rows, size and seed: there is nothing else to give."""
    batches = bucketed_batches(texts(200), 8, buckets=3, pad_id=0, seed=0)
    first = [batches.batch(number) for number in range(batches.per_epoch)]
    real = [batch.index[batch.mask.any(axis=1)] for batch in first]
    assert sorted(np.concatenate(real)) == list(range(200))


def linear_loss(params, batch, key):
    """A loss on the tokens of a batch, as sums; what is masked weighs nothing."""
    mask = batch.response_mask
    found = params["w"][batch.tokens] ** 2 + params["w"].sum()
    return (found * mask).sum(), (mask.sum(), {})


def after_steps(directory, loss_fn, batches, *, devices, parts, axis=True, measure=None):
    """The weights after two steps of gradient descent there."""
    with open_run(directory, ModelConfig(), PlaceConfig(devices=devices), 0) as run:
        loss = loss_fn(run.layout.axis_name) if axis else loss_fn
        step = functools.partial(train_step, loss_fn=loss, optimizer=RATE, measure=measure)
        step = run.step(step, micro_batches=parts)
        state = run.layout.place(initial_state(START, RATE, jax.random.key(0)))
        for number in range(2):
            state, _ = step(state, batches(number))
    return np.asarray(state.params["w"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bucketed", "packed"])
def test_training_on_texts_is_the_same_everywhere(kind, tmp_path):
    rows, size = texts(60), 9  # neither devices nor micro-batches divide it
    shape = {"pad_id": 0, "seed": 3}
    batches = (
        bucketed_batches(rows, size, buckets=1, **shape)
        if kind == "bucketed"
        else packed_batches(rows, size, length=32, **shape)
    )
    places = itertools.product((1, 2, 8), (1, 2, 3)) if kind == "bucketed" else ((1, 1), (8, 2))
    trained = {}
    for devices, parts in places:
        where = {"devices": devices, "parts": parts, "axis": False}
        trained[devices, parts] = after_steps(tmp_path, linear_loss, batches.batch, **where)
    # An update is a mean of w, which is of order 1, over terms summed in float32.
    for found in trained.values():
        np.testing.assert_allclose(found, trained[1, 1], rtol=0, atol=1e-6)
    assert np.abs(trained[1, 1] - START["w"]).max() > 0.1


def logps(params, rows, keys):
    """Log-probabilities of a model without context."""
    table = jax.nn.log_softmax(params["w"])
    tokens = rows.responses if hasattr(rows, "responses") else rows.tokens
    return table[tokens]


def scores(params, rows, keys):
    """The sum over a text."""
    return (params["w"][rows.tokens] * rows.mask).sum(axis=1)


def pair_batch(rows: int):
    sides = [[token_row(([1], False), (row.tokens[1:].tolist(), True)) for row in texts(rows, s)]
             for s in (0, 1)]  # fmt: skip
    groups, index = list(zip(*sides, strict=True)), np.arange(rows)
    pairs = shared_preference_batch(groups, pad_id=0, lengths=shared_lengths(groups), index=index)
    logps: Any = np.random.default_rng(5).normal(size=(2, rows)).astype(np.float32)
    return dataclasses.replace(pairs, reference=PairLogps(chosen=logps[0], rejected=logps[1]))


def labelled_batch(rows: int):
    some = texts(rows)
    reference = np.full(rows, -9.0, np.float32)
    return unpaired_batch(
        some, np.arange(rows) % 2 == 0, reference, pad_id=0, length=24,
        mismatched=texts(rows, 1), mismatched_reference=reference, index=np.arange(rows),
    )  # fmt: skip


def compared_batch(rows: int):
    flat = texts(2 * rows)
    groups = [flat[2 * i : 2 * i + 2] for i in range(rows)]
    first_wins = np.tile(np.array([[0.0, 1.0], [0.0, 0.0]], np.float32), (rows, 1, 1))
    return comparison_batch(groups, first_wins, pad_id=0)


def ranked_batch(rows: int):
    flat = texts(3 * rows)
    return ranking_batch([flat[3 * i : 3 * i + 2 + i % 2] for i in range(rows)], pad_id=0, size=3)


def solution_batch(rows: int):
    some = texts(rows)
    labels = [np.float32(np.arange(row.is_response.sum()) % 2) for row in some]
    return step_batch(some, labels, pad_id=0, length=24)


def step_scores(params, rows, keys):
    return params["w"][rows.tokens]


PENALTY = {"l2": 0.01, "centering": 0.1}
OBJECTIVES = {
    "dpo": (pair_batch, lambda axis: objectives.paired(logps, DPO), None),
    "ipo": (pair_batch, lambda axis: objectives.paired(logps, AVERAGED_IPO), None),
    "aot": (pair_batch, lambda axis: objectives.paired(logps, AOT, axis_name=axis), None),
    "kto": (labelled_batch, lambda axis: objectives.unpaired(logps, KTO, axis_name=axis),
            objectives.unpaired_sums(logps, KTO)),
    "reward": (compared_batch, lambda axis: objectives.reward(scores, **PENALTY), None),
    "ranking": (ranked_batch, lambda axis: objectives.ranking(scores, **PENALTY), None),
    "process": (solution_batch, lambda axis: objectives.process_reward(step_scores), None),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", OBJECTIVES)
def test_rows_that_fill_up_a_batch_weigh_nothing(name, tmp_path):
    """Nine rows on one device, and on eight devices times two, which takes sixteen."""
    make, loss_of, measure = OBJECTIVES[name]
    batch, parts = make(9), 1 if name == "aot" else 2
    alone, spread = (
        after_steps(tmp_path, loss_of, lambda number: batch, measure=measure, **where)
        for where in ({"devices": 1, "parts": 1}, {"devices": 8, "parts": parts})
    )
    np.testing.assert_allclose(spread, alone, rtol=1e-5, atol=1e-6)
    assert np.isfinite(alone).all() and np.abs(alone - START["w"]).max() > 1e-3


@pytest.mark.parametrize("minibatches", [1, 2, 4])
def test_minibatches_of_grpo_hold_the_same_responses_everywhere(minibatches):
    settings = GRPOSettings(prompts=12, group_size=6, minibatches=minibatches)
    found = set()
    for devices in DEVICES:
        for parts in PARTS:
            given = GRPOSettings(
                prompts=12, group_size=6, minibatches=minibatches, micro_batches=parts
            )
            together, in_a_row = shared_responses(given, devices=devices)
            assert together % in_a_row == 0 and 6 % together == 0
            units = np.arange(settings.batch_size).reshape(-1, together)
            chosen = minibatch_rows(
                jax.random.key(1), rows=len(units), epochs=1, minibatches=minibatches
            )
            found.add(str([units[np.asarray(rows)].ravel().tolist() for rows in chosen]))
    assert len(found) == 1
