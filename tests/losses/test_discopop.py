"""DiscoPOP: between the logistic and the exponential loss."""

import math

import numpy as np

import jaxalign as ja
from tests.cases.losses.discopop import CASES
from tests.checks.of_cases import checks_of
from tests.pairs import pair

TestCases = checks_of(CASES)


def test_discopop_is_logistic_on_the_left_and_exponential_on_the_right(x64):
    zero = pair(0, 0)
    left = ja.discopop_loss(pair(-30.0, 0), zero, beta=0.1)
    np.testing.assert_allclose(left, ja.dpo_loss(pair(-30.0, 0), zero, beta=0.1), rtol=1e-9)
    right = ja.discopop_loss(pair(30.0, 0), zero, beta=0.1)
    np.testing.assert_allclose(right, math.exp(-3), rtol=1e-9)
