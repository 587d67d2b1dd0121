"""Scores of a trained reward model: standardised, and known where they were computed already."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxalign.config.loop import FitConfig
from jaxalign.config.place import PlaceConfig
from jaxalign.config.reward import RewardConfig, RewardSettings
from jaxalign.data.chat import token_row
from jaxalign.data.preferences import pairs_as_groups
from jaxalign.recipes import scoring
from jaxalign.recipes.endings import Ending
from jaxalign.recipes.held_out import WholeScores
from jaxalign.recipes.reward import LEAST, train_reward
from jaxalign.recipes.run import open_run
from jaxalign.recipes.scoring import score_rows
from jaxalign.recipes.text_models import with_heads
from tests.tiny_models import tiny_policy

PLACE = PlaceConfig(layout="device", devices=1)
POLICY = tiny_policy(64)


def compared(count, seed):
    """Texts and groups of pairs."""
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(count):
        prompt = rng.integers(3, 200, rng.integers(1, 9))
        sides = [rng.integers(3, 200, rng.integers(1, 20)) for _ in range(2)]
        pairs.append(tuple(token_row((prompt, False), (side, True)) for side in sides))
    return pairs_as_groups(pairs, np.zeros(count, np.float32))


TRAIN, HELD_OUT = compared(6, 0), compared(10, 1)


@pytest.fixture
def computed(monkeypatch):
    """Numbers of the texts whose scores are computed, pass by pass."""
    counts, compute = [], scoring._computed_scores

    def counted(run, reward, rows):
        counts.append(len(rows))
        return compute(run, reward, rows)

    monkeypatch.setattr(scoring, "_computed_scores", counted)
    return counts


def trained(folder, held_out, **changes):
    settings = RewardSettings(fit=FitConfig(steps=3, batch_size=4), **changes)
    with open_run(folder, RewardConfig(place=PLACE), PLACE, 0, inputs={}) as run:
        rows, groups = TRAIN
        shared = {"groups": groups, "settings": settings, "held_out": held_out}
        model, deviation = train_reward(run, "reward", POLICY, rows, **shared)
        return run, model, deviation


def anew(run, model, rows):
    """Scores by a model that knows none."""
    return score_rows(run, dataclasses.replace(model, known=None), rows)


def is_standard(scores):
    return abs(scores.mean()) < 1e-5 and abs(scores.std() - 1) < 1e-5


@pytest.mark.parametrize(
    "changes", [{}, {"bag": True}, {"trunk": "frozen"}, {"pooling": "mean"}], ids=str
)
def test_scores_are_standard_over_the_held_out_texts(changes, tmp_path):
    run, model, deviation = trained(tmp_path / "run", HELD_OUT, **changes)
    scores = anew(run, model, HELD_OUT[0])
    assert is_standard(scores) and not is_standard(anew(run, model, TRAIN[0]))
    np.testing.assert_allclose(score_rows(run, model, HELD_OUT[0]), scores, atol=1e-5)
    assert 0 < deviation < 10


def test_no_text_is_scored_again_after_training(tmp_path, computed):
    run, model, _ = trained(tmp_path / "run", HELD_OUT)
    score_rows(run, model, HELD_OUT[0])
    assert computed == [20]  # by the evaluation at the end
    score_rows(run, model, [*HELD_OUT[0], *TRAIN[0]])
    assert computed == [20, 12]


def test_a_run_that_is_opened_again_finds_the_same_scores(tmp_path, computed):
    run, model, deviation = trained(tmp_path / "run", HELD_OUT)
    del computed[:]
    again, same, other = trained(tmp_path / "run", HELD_OUT)
    assert other == deviation and computed == [20]
    jax.tree.map(np.testing.assert_array_equal, same.params, model.params)
    found, expected = score_rows(again, same, HELD_OUT[0]), score_rows(run, model, HELD_OUT[0])
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("pairs", [0, LEAST // 2 - 1, LEAST // 2])
def test_few_held_out_texts_tell_no_deviation(pairs, tmp_path):
    """Those of training do then; the error of a deviation of so few texts is below a fifth."""
    held_out = compared(pairs, 2) if pairs else None
    run, model, _ = trained(tmp_path / "run", held_out)
    enough = 2 * pairs >= LEAST
    assert is_standard(anew(run, model, TRAIN[0])) != enough
    assert (model.known is not None) == enough
    assert LEAST == 16


def test_a_model_that_tells_no_texts_apart_keeps_its_scale(tmp_path, monkeypatch):
    monkeypatch.setattr(WholeScores, "of", lambda self, trained, name, rows: np.full(20, 3.0))
    _, model, deviation = trained(tmp_path / "run", HELD_OUT)
    assert deviation == 0 and model.known is not None
    assert set(model.known.outputs.values()) == {0.0}


@dataclasses.dataclass(frozen=True, kw_only=True)
class EndingAt(Ending):
    """An ending whose model is that of a given step."""

    at: int = 0

    @property
    def step(self) -> int:
        return self.at


def test_scores_of_another_state_are_not_those_of_the_model(tmp_path, computed):
    model = with_heads(POLICY, ("score",), jax.random.key(1))
    with open_run(tmp_path / "run", RewardConfig(place=PLACE), PLACE, 0, inputs={}) as run:
        scores, rows = WholeScores(run=run, model=model), HELD_OUT[0]
        scores(jax.tree.map(lambda x: 2 * x, model.params), rows)
        for step, count in ((5, 1), (3, 2)):
            run.endings["reward"] = EndingAt(stage="reward", steps=5, at=step)
            scores.of(model, "reward", rows)
            assert len(computed) == count
