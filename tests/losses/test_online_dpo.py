"""Online DPO: two samples ranked by a judge."""

import jax.numpy as jnp
import numpy as np

import jaxalign as ja
from tests.cases.losses.online_dpo import CASES
from tests.checks.of_cases import checks_of

TestCases = checks_of(CASES)


def test_ties_weigh_nothing():
    first, second = jnp.array([-1.0, -2.0, -3.0]), jnp.array([-4.0, -5.0, -6.0])
    pair, weights = ja.ranked(first, second, jnp.array([1.0, 0.0, 2.0]), jnp.array([0, 1, 2.0]))
    assert pair.chosen.tolist() == [-1, -5, -3]
    assert pair.rejected.tolist() == [-4, -2, -6]
    assert weights.tolist() == [1, 1, 0]


def test_scores_that_differ_by_rounding_are_ties():
    logps, one = jnp.array([-1.0, -2.0, -3.0]), np.float32(1)
    scores = np.array([np.float32(0.1) + np.float32(0.6), 1.0001, -1e-9], np.float32)
    _, weights = ja.ranked(logps, logps, scores, np.array([0.7, one, 1e-9], np.float32))
    assert weights.tolist() == [0, 1, 1]
