"""Rewards of single steps of a solution."""

import jax
import numpy as np

import jaxalign as ja
from tests.cases.losses.process_reward import CASES
from tests.checks.of_cases import checks_of

TestCases = checks_of(CASES)


def test_a_step_is_right_as_often_as_its_label_says(x64):
    """A hard label is a comparison with 0; a soft one is met where the chance is the label."""
    logits = np.array([-2.0, 0.5, 3.0])
    right = ja.process_reward_loss(logits, np.ones(3))
    np.testing.assert_allclose(right, ja.bradley_terry_loss(logits), rtol=1e-12)
    np.testing.assert_allclose(ja.process_reward_loss(-logits, np.zeros(3)), right, rtol=1e-12)
    soft = np.array([0.1, 0.5, 0.8])
    slope = jax.grad(lambda x: ja.process_reward_loss(x, soft).sum())
    np.testing.assert_allclose(slope(np.log(soft / (1 - soft))), 0, atol=1e-15)
