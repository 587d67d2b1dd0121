"""CPO: preferences and imitation in one sum."""

import numpy as np

import jaxalign as ja
from tests.cases.losses.cpo import CASES
from tests.checks.of_cases import checks_of
from tests.pairs import LENGTHS, pair

TestCases = checks_of(CASES)


def test_cpo_by_hand():
    # log(1 + exp(-0.5 (-2 + 8))) and -2 / 2, of weight 0.25
    cpo = ja.cpo_loss(pair(-2.0, -8.0), LENGTHS, beta=0.5, nll_coef=0.25)
    np.testing.assert_allclose(cpo, np.log1p(np.exp(-3.0)) + 0.25, rtol=1e-6)
