"""BCO: a classifier of good and bad with a shifted reward."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxalign as ja
from jaxalign import RunningMean
from tests.cases.losses.bco import CASES
from tests.checks.of_cases import checks_of
from tests.pairs import BETA, POLICY, REFERENCE

RNG = np.random.default_rng(0)
TestCases = checks_of(CASES)


def test_bco_is_above_dpo():
    """Jung et al. 2024: the bound that it descends on, at any shift."""
    for shift in (-2.0, 0.0, 0.7):
        bco = ja.bco_pair_loss(POLICY, REFERENCE, beta=BETA, shift=shift)
        assert (bco > ja.dpo_loss(POLICY, REFERENCE, beta=BETA)).all()


def test_bco_learns_the_chance_of_being_good(x64):
    chance, shift = 0.7, 0.4

    def expected(logp):
        good, bad = (
            ja.bco_loss(logp, jnp.zeros(1), np.full(1, y), beta=0.5, shift=shift)
            for y in (True, False)
        )
        return (chance * good + (1 - chance) * bad).sum()

    best = (shift + math.log(chance / (1 - chance))) / 0.5
    assert float(jax.grad(expected)(jnp.full(1, best))[0]) == pytest.approx(0, abs=1e-15)


class TestShift:
    def test_batch_after_batch_is_all_at_once(self, x64):
        rewards, mask = RNG.normal(size=(5, 3)), RNG.random((5, 3)) < 0.7
        state = RunningMean(mean=jnp.zeros(()), count=jnp.zeros(()))
        for row, real in zip(rewards, mask, strict=True):
            state = ja.running_shift(state, row, real)
        assert float(state.mean) == pytest.approx(rewards[mask].mean(), abs=1e-14)
        assert float(state.count) == mask.sum()

    def test_one_reward_is_the_mean(self):
        start = RunningMean(mean=jnp.zeros(()), count=jnp.zeros(()))
        after = ja.running_shift(start, jnp.array([3.0]), jnp.array([True]))
        assert (after.mean, after.count) == (3, 1)

    def test_an_empty_batch_changes_nothing(self):
        state = RunningMean(mean=jnp.float32(0.3), count=jnp.float32(2.0))
        after = ja.running_shift(state, jnp.full(3, jnp.nan), jnp.zeros(3, bool))
        assert (after.mean, after.count) == (state.mean, state.count)

    def test_bad_prompts_are_weighed_like_good_ones(self, x64):
        """Bayes: with as many good as bad, q_bad p / (1 - p) is q_good."""
        good, bad = np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.3, 0.6])
        weights = ja.density_ratios(good / (good + bad), lowest=1e-3, highest=1e3)
        np.testing.assert_allclose(bad * weights, good, rtol=1e-12)
