"""Baselines of a greedy answer and of what was scored before."""

import jax.numpy as jnp
import pytest

from jaxalign import (
    greedy_baseline_advantages,
    running_baseline,
)
from tests.cases.advantages.baselines import CASES
from tests.checks.of_cases import checks_of

TestCases = checks_of(CASES)


def test_the_running_baseline_is_a_number():
    with pytest.raises(AssertionError):
        running_baseline(jnp.ones(1), jnp.ones(3), jnp.ones(3, bool), decay=0.5)


def test_greedy_baseline_takes_a_score_a_response():
    """With an axis more, a greedy score would be taken from another response's group."""
    scores = jnp.zeros((2, 3, 4))
    with pytest.raises(AssertionError):
        greedy_baseline_advantages(scores, scores[:, 0], scores == 0)


def test_one_score_moves_the_running_baseline():
    """By hand: 2 + (1 - 0.75)(6 - 2) = 3."""
    mask = jnp.asarray([True, False])
    moved = running_baseline(jnp.asarray(2.0), jnp.asarray([6.0, 9.0]), mask, decay=0.75)
    assert float(moved) == 3


def test_running_baseline():
    # 5 + (3 - 5) / 4; nothing to learn from an empty batch
    scores, mask = jnp.array([2.0, 4.0, jnp.nan]), jnp.array([True, True, False])
    start = jnp.float32(5.0)
    assert float(running_baseline(start, scores, mask, decay=0.75)) == 4.5
    assert float(running_baseline(start, scores, mask & False, decay=0.75)) == 5
    assert float(running_baseline(start, scores, mask, decay=0.0)) == 3
    with pytest.raises(ValueError, match=r"decay must be in \[0, 1\), got 1"):
        running_baseline(start, scores, mask, decay=1.0)
