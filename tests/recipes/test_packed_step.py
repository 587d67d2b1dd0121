"""Steps on packed texts: loss, gradient and training of the batches as they are."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from jaxalign import objectives
from jaxalign.batches.tokens import TokenBatch
from jaxalign.cli import dispatch
from jaxalign.config.dpo import DPOSettings
from jaxalign.config.kto import KTOSettings
from jaxalign.data import step_packing
from jaxalign.data.batching import token_batch
from jaxalign.data.chat import token_row
from jaxalign.data.preference_batches import comparison_batch, ranking_batch
from jaxalign.data.step_packing import Packing, packing_of
from jaxalign.layouts.choice import make_layout
from jaxalign.losses import BRADLEY_TERRY, PLACKETT_LUCE
from jaxalign.models.functions import text_end_scores, text_logps_and_likeliest, text_scores
from jaxalign.recipes import packed_step as module
from jaxalign.recipes.packed_step import can_be_packed, packed_loss
from jaxalign.recipes.preferences import (
    LabelledBatches,
    PairBatches,
    pair_objective,
    unpaired_objective,
)
from jaxalign.recipes.text_models import save_text_model, with_heads
from tests.tiny_models import tiny_policy

POLICY = tiny_policy(64)
KEY = jax.random.key(3)


def texts_of(count, seed=0, *, longest=20):
    """Texts with a prompt of a few, two texts to a prompt."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(-(-count // 2)):
        prompt = rng.integers(3, 200, rng.integers(1, 9))
        responses = [rng.integers(3, 200, rng.integers(1, longest)) for _ in range(2)]
        rows += [token_row((prompt, False), (response, True)) for response in responses]
    return rows[:count]


def score(rows, temperature):
    return -np.linspace(5.0, 30.0, len(rows), dtype=np.float32)


def pairs_of(count, **more):
    rows = texts_of(2 * count, **more)
    return list(zip(rows[::2], rows[1::2], strict=True))


def pair_batches(pairs, settings):
    scoring = {"score": score, "settings": settings, "temperature": 0.7, "pad_id": 0}
    return PairBatches(pairs=pairs, **scoring)


def compare(make_loss, read, params, batch, *, of_ends=None, **more):
    """Loss, metrics and gradients agree; both losses get parameters and key as in a step."""
    packed = Packing(shape=(3, 96), pad_id=0, of_texts=of_ends is not None)(batch)
    assert packed is not None
    losses = {
        "plain": (make_loss(read), batch),
        "packed": (packed_loss(make_loss, of_ends or read), packed),
    }
    found = {
        name: jax.jit(jax.value_and_grad(fn, has_aux=True))(params, rows, KEY, **more)
        for name, (fn, rows) in losses.items()
    }

    def close(a, b):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5 * max(1.0, np.abs(b).max()))

    jax.tree.map(close, found["packed"], found["plain"])
    (_, (weight, _)), gradients = found["plain"]
    assert weight > 0 and any(np.abs(x).max() > 1e-3 for x in jax.tree.leaves(gradients))


@pytest.mark.parametrize(
    "changes",
    [{}, {"loss": "ipo"}, {"loss": "cpo"}, {"wpo": True}, {"loss": "bco_pair"}, {"ld_alpha": 0.5}],
    ids=lambda changes: "-".join(map(str, changes.values())) or "dpo",
)
def test_losses_of_pairs(changes):
    settings = DPOSettings(**changes)
    objective = pair_objective(POLICY, settings, temperature=0.7)
    batch = pair_batches(pairs_of(6), settings)(np.array([4, 0, 3]))
    more = {} if objective.statistics is None else {"statistics": objective.statistics}
    compare(objective.make_loss, objective.read, POLICY.params, batch, **more)


def test_losses_of_labelled_responses_with_mismatched_ones():
    rows = texts_of(7)
    scoring = {"score": score, "settings": KTOSettings(), "temperature": 1.0, "pad_id": 0}
    batches = LabelledBatches(rows=rows, labels=[True, False] * 3 + [True], **scoring)
    objective = unpaired_objective(POLICY, KTOSettings(), temperature=1.0)
    compare(objective.make_loss, objective.read, POLICY.params, batches(np.array([5, 1, 2])))


def test_the_loss_of_texts():
    read = text_logps_and_likeliest(POLICY.model)
    compare(objectives.sft, read, POLICY.params, token_batch(texts_of(5), pad_id=0))


def test_losses_of_scores():
    model = with_heads(POLICY, ("score",), jax.random.key(1))
    read, rows = text_scores(model.model), texts_of(8)
    of_ends = text_end_scores(model.model)
    preferences = np.random.default_rng(0).random((2, 3, 3)) * (1 - np.eye(3))
    groups = comparison_batch([rows[:3], rows[3:6]], preferences, pad_id=0)
    reward = lambda read: objectives.reward(read, BRADLEY_TERRY, centering=0.1)  # noqa: E731
    compare(reward, read, model.params, groups, of_ends=of_ends)
    rankings = ranking_batch([rows[:2], rows[2:6]], pad_id=0, size=4)  # two places are empty
    ranking = lambda read: objectives.ranking(read, PLACKETT_LUCE)  # noqa: E731
    compare(ranking, read, model.params, rankings, of_ends=of_ends)


def test_a_text_that_a_batch_has_twice_is_computed_once():
    row = texts_of(1)[0]
    packing = Packing(shape=(1, len(row)), pad_id=0, of_texts=False)
    packed = packing(token_batch([row, row, row], pad_id=0))
    assert packed is not None and int(packed.texts.mask.sum()) == len(row)


def test_what_does_not_fit_is_not_packed():
    batch = token_batch(texts_of(4), pad_id=0)
    assert Packing(shape=(1, 40), pad_id=0, of_texts=False)(batch) is None
    assert Packing(shape=(4, 27), pad_id=0, of_texts=False)(batch) is not None


def shape_for(lengths, *, updates=16, parameters=10**8):
    """Shape of packed steps of four texts of these lengths."""
    longest = max(lengths)

    def batch(number):
        rng = np.random.default_rng(number)
        chosen = [rng.integers(3, 200, n) for n in rng.choice(lengths, 4)]
        return token_batch([token_row((ids, True)) for ids in chosen], pad_id=0, length=longest)

    more = {"parameters": parameters, "pad_id": 0, "of_texts": False}
    return packing_of(batch, updates=updates, **more)


def test_rows_are_packed_where_that_leaves_out_padding():
    assert shape_for([50]) is None
    mixed = shape_for([20, 30, 90, 100], updates=200)
    assert mixed is not None
    rows, length = mixed.shape
    assert 4 * 60 <= rows * length < 0.95 * 4 * 100
    assert length % 8 == 0


def test_a_rare_long_batch_does_not_decide_the_shape():
    lengths = [20] * 60 + [400]
    packing = shape_for(lengths, updates=256)
    assert packing is not None and packing.shape[0] * packing.shape[1] < 200


def test_about_as_many_steps_have_the_same_program():
    packings = {shape_for([20, 30, 90, 100], updates=updates) for updates in (33, 40, 64)}
    assert len(packings) == 1 and packings != {None}


def test_only_deep_models_without_noise_are_packed(monkeypatch):
    one = make_layout("device", devices=1)
    assert not can_be_packed(POLICY, one)
    monkeypatch.setattr(module, "DEEP", 1)
    assert can_be_packed(POLICY, one)
    assert not can_be_packed(POLICY, make_layout("mesh", devices=2))
    assert not can_be_packed(with_heads(POLICY, ("logits",), KEY, dropout=0.1), one)


ROWS = {
    "dpo": [{"prompt": f"the {w} ", "chosen": "film is good " * n, "rejected": f"good {w}"}
            for w, n in (("is", 1), ("film", 4), ("the", 1), ("good", 2))],
    "sft": [{"prompt": "the ", "completion": "film is good " * n} for n in (1, 5, 1, 2)],
}  # fmt: skip


@pytest.mark.parametrize("command", ["dpo", "sft", "reward"])
def test_runs_learn_the_same_packed(command, tmp_path, monkeypatch):
    """Also where a batch does not fit, and the numbers of the run are those of a plain one."""
    save_text_model(tmp_path / "policy", tiny_policy(64))
    rows = ROWS.get(command, ROWS["dpo"])
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))

    def run(name):
        start = "--policy" if command == "dpo" else "--init"
        words = [command, start, tmp_path / "policy", "--data.path", tmp_path / "rows.jsonl"]
        words += ["--steps", 4, "--batch_size", 2, "--place.devices", 1, "--place.layout", "device"]
        words += ["--learning_rate", 0.01, "--log_every", 1, "--output", tmp_path / name]
        words += ["--reward.dropout", 0] if command == "reward" else []
        dispatch([str(word) for word in words])
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        return [line["loss"] for line in map(json.loads, lines) if "loss" in line]

    plain = run("plain")
    monkeypatch.setattr(module, "DEEP", 1)
    monkeypatch.setattr(step_packing, "GAIN", 1e9)
    monkeypatch.setattr(step_packing, "SHARES", (0.5,))
    monkeypatch.setattr(step_packing, "SPANS", (1.0,))
    monkeypatch.setattr(step_packing, "COMPILATION", 1.0)
    shapes, make = [], Packing.__call__

    def packed(self, batch):
        shapes.append(make(self, batch))
        return shapes[-1]

    monkeypatch.setattr(Packing, "__call__", packed)
    np.testing.assert_allclose(run("packed"), plain, rtol=2e-3)
    assert len(shapes) == 4 and any(shapes), shapes


def test_columns_stand_in_place_of_tokens():
    """The batch of a packed step still tells padding from texts."""
    batch = token_batch(texts_of(3), pad_id=0)
    packed = Packing(shape=(2, 64), pad_id=0, of_texts=False)(batch)
    assert packed is not None and isinstance(packed.rows, TokenBatch)
    np.testing.assert_array_equal(packed.rows.mask[0], batch.mask)
    flat = packed.texts.tokens.reshape(-1)
    np.testing.assert_array_equal(flat[packed.rows.tokens[0]][batch.mask], batch.tokens[batch.mask])
    assert dataclasses.asdict(packed.texts)["branches"] is not None
