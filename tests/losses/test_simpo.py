"""SimPO: average log-probabilities without a reference."""

import functools

import jax
import numpy as np

import jaxalign as ja
from tests.cases.losses.simpo import CASES
from tests.checks.of_cases import checks_of
from tests.pairs import LENGTHS, MANY, POLICY, pair

TestCases = checks_of(CASES)


def test_simpo_does_not_reward_length(x64):
    double = functools.partial(jax.tree.map, lambda x: 2 * x)
    simpo = functools.partial(ja.simpo_loss, beta=2.0, gamma=0.5)
    once = simpo(POLICY, MANY)
    np.testing.assert_allclose(simpo(double(POLICY), double(MANY)), once, rtol=1e-12)
    alphapo = ja.alphapo_loss(POLICY, MANY, beta=2.0, gamma=0.5, alpha=1e-9)
    np.testing.assert_allclose(alphapo, once, atol=1e-6)


def test_simpo_by_hand():
    # 2 (-1) - 2 (-2) - 0.5 = 1.5
    loss = ja.simpo_loss(pair(-2.0, -8.0), LENGTHS, beta=2.0, gamma=0.5)
    np.testing.assert_allclose(loss, np.log1p(np.exp(-1.5)), rtol=1e-6)
