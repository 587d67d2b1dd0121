"""Plackett-Luce: rankings of several candidates."""

import functools
import itertools

import jax.numpy as jnp
import numpy as np
import pytest

import jaxalign as ja
from tests.cases.losses.plackett_luce import CASES
from tests.checks.of_cases import checks_of

RNG = np.random.default_rng(0)
TestCases = checks_of(CASES)


class TestRankings:
    every = np.ones((1, 4), bool)

    def test_two_candidates_are_a_comparison(self):
        scores = RNG.normal(size=(20, 2)).astype(np.float32)
        ranked = ja.plackett_luce_loss(scores, np.ones((20, 2), bool))
        np.testing.assert_allclose(
            ranked, ja.bradley_terry_loss(scores[:, 0] - scores[:, 1]), rtol=1e-5, atol=1e-6
        )

    def test_only_differences_of_scores_count(self, x64):
        scores = RNG.normal(size=(1, 4))
        loss = functools.partial(ja.plackett_luce_loss, mask=self.every)
        np.testing.assert_allclose(loss(scores + 50), loss(scores), rtol=1e-12)

    def test_chances_of_all_orders_sum_to_one(self, x64):
        scores = np.array(list(itertools.permutations([0.3, -1.2, 2.0, 0.5])))
        chances = jnp.exp(-ja.plackett_luce_loss(scores, np.ones((24, 4), bool)))
        assert float(chances.sum()) == pytest.approx(1, abs=1e-12)
        assert int(jnp.argmax(chances)) == scores.tolist().index([2.0, 0.5, 0.3, -1.2])

    def test_one_candidate_or_none_says_nothing(self):
        mask = np.array([[False, True, False, False], [False] * 4])
        np.testing.assert_array_equal(ja.plackett_luce_loss(RNG.normal(size=(2, 4)), mask), 0)


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4)])
def test_rankings_of_other_ranks_are_refused(shape):
    with pytest.raises(AssertionError):
        ja.plackett_luce_loss(jnp.zeros(shape), jnp.ones(shape, bool))
