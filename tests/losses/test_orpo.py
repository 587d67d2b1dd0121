"""ORPO: odds of average likelihoods."""

import functools

import numpy as np
import pytest

import jaxalign as ja
from jaxalign import PairLengths
from tests.cases.losses.orpo import CASES
from tests.checks.of_cases import checks_of
from tests.pairs import LENGTHS, LOG2, pair, value_and_slopes

TestCases = checks_of(CASES)


def test_orpo_by_hand():
    # p = 1/2 and 1/4: odds 1 and 1/3; -log sigmoid(log 3) = log 4/3
    logs = pair(np.log(0.25), np.log(1 / 256))
    orpo = ja.orpo_loss(logs, LENGTHS, beta=2.0)
    np.testing.assert_allclose(orpo, LOG2 + 2 * np.log(4 / 3), rtol=1e-6)


def test_odds_of_near_certain_texts():
    """p = 1 has infinite odds; value and gradient stay numbers, the gradient large below it."""
    at = pair([0.0, -1e-38, -1e-7, -2.0], [-1.0, 0.0, -1e-30, 0.0])
    lengths = PairLengths(chosen=np.ones(4), rejected=np.ones(4))
    loss = functools.partial(ja.orpo_loss, lengths=lengths, beta=1.0)
    value, chosen, rejected = value_and_slopes(loss, at)
    assert np.isfinite(value) and np.isfinite(chosen).all() and np.isfinite(rejected).all()
    # d/dx log odds = 1 / (1 - p): 1e7 at p = 1 - 1e-7, where the chosen one has lost
    assert float(chosen[2]) == pytest.approx(-1e7, rel=1e-3)


def test_odds_of_the_opposite(x64):
    chance = np.array([0.001, 0.3, 0.5, 0.999])
    opposite = ja.log_odds(np.log1p(-chance))
    np.testing.assert_allclose(ja.log_odds(np.log(chance)), -opposite, rtol=1e-10, atol=1e-15)
