"""Sums of several judges: who is left out, and which sums are equal."""

import itertools
from fractions import Fraction

import numpy as np
import pytest

from jaxalign.advantages.reward_sums import reward_sums

NONE = np.nan


def summed(rows, weights, groups=None):
    groups = [0] * len(rows) if groups is None else groups
    return reward_sums(np.array(rows, float), np.array(weights), np.array(groups)).tolist()


@pytest.mark.parametrize(
    ("rows", "weights", "groups", "expected"),
    [
        # format -1 and truth 1, against unknown format and truth 1, which must not win
        ([[-1, 1], [NONE, 1], [1, 0]], [1, 1], [0, 0, 0], [0, NONE, 1]),
        # two tasks, each with a judge of its own and one for both
        (
            [[1, NONE, 5], [2, NONE, 5], [NONE, 3, 5], [NONE, 4, 5]],
            [1, 1, 1],
            [7, 7, 2, 2],
            [6, 7, 8, 9],
        ),
        # rows of a group need not stand side by side
        ([[1, NONE], [NONE, 3], [2, NONE], [NONE, 4]], [1, 10], [0, 1, 0, 1], [1, 30, 2, 40]),
        # each judged by one of two: nobody has been judged by all judges of the group
        ([[1, NONE], [NONE, 3]], [1, 1], [0, 0], [NONE, NONE]),
        # a judge that weighs nothing takes nobody out
        ([[1, NONE], [3, 8]], [2, 0], [0, 0], [2, 6]),
        ([[NONE, NONE], [1, NONE]], [1, 1], [0, 1], [NONE, 1]),
        ([[NONE]], [1], [0], [NONE]),
    ],
)
def test_by_hand(rows, weights, groups, expected):
    np.testing.assert_array_equal(summed(rows, weights, groups), expected)


def test_none_never_wins_or_loses():
    """Whatever judges leave out, a score is the sum over all judges of the group, or nothing."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        scores, weights = rng.normal(size=(12, 3)), rng.normal(size=3)
        groups = rng.integers(3, size=12)
        holes = np.where(rng.random(scores.shape) < 0.3, np.nan, scores)
        found = reward_sums(holes, weights, groups)
        for g, score, row in zip(groups, found, holes, strict=True):
            judges = [f for f in range(3) if not np.isnan(holes[groups == g, f]).all()]
            exact = sum(weights[f] * row[f] for f in judges) if judges else np.nan
            np.testing.assert_allclose(score, exact, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "weights",
    [
        *((0.1, 0.6, 0.7), (0.1, 0.2, 0.3), (1.1, 2.2, 3.3), (0.3, -0.1, 0.2)),
        *((1e-6, 6e-6, 7e-6), (1e6, 6e6, 7e6), (0.1, 99.9, 100.0)),
    ],
)
def test_sums_that_are_equal_by_arithmetic_are_equal(weights):
    """All 0/1 rewards: two sums are one number just where their exact values, of the weights as
    they are written, are.
    """
    rows = list(itertools.product([0, 1], repeat=3))
    found = summed(rows, weights)
    exact = [sum(Fraction(str(w)) * r for w, r in zip(weights, row, strict=True)) for row in rows]
    for (a, x), (b, y) in itertools.combinations(zip(found, exact, strict=True), 2):
        assert (a == b) == (x == y), (weights, a, b, x, y)
    np.testing.assert_allclose(found, np.array(exact, float), rtol=1e-12, atol=1e-12 * max(weights))


def test_terms_that_cancel_leave_nothing():
    rows = [[100.1, -100.1, 0], [0.3, -0.1, -0.2], [0, 0, 0]]
    assert len(set(summed(rows, [1.0, 1.0, 1.0]))) == 1
    assert len(set(summed([[0.1, 3e5], [0.3, 1e5]], [3.0, 1e-5]))) == 2


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1.0, 1e6, 1e8])
def test_close_scores_stay_apart(scale):
    rows = np.array([[1.0], [1.0001], [1.0000000001], [0.9999]]) * scale
    assert summed(rows, [1.0]) == rows[:, 0].tolist()
