"""TPO: preferences beside a third, best response."""

import numpy as np

import jaxalign as ja
from tests.cases.losses.tpo import CASES
from tests.checks.of_cases import checks_of
from tests.pairs import BETA, MANY, POLICY, E

TestCases = checks_of(CASES)


def test_without_the_third_text_tpo_is_a_preference_loss():
    gold = np.full(40, -3.0), np.full(40, 2.0)
    alone = {"nll_coef": 0.0, "label_smoothing": E}
    np.testing.assert_array_equal(
        ja.tpo_loss(POLICY, *gold, beta=BETA, **alone),
        ja.dpo_loss(POLICY, ja.no_reference(POLICY), beta=BETA, label_smoothing=E),
    )
    np.testing.assert_array_equal(
        ja.tpo_l_loss(POLICY, MANY, *gold, beta=2.0, gamma=0.5, **alone),
        ja.simpo_loss(POLICY, MANY, beta=2.0, gamma=0.5, label_smoothing=E),
    )
    more = ja.tpo_loss(POLICY, *gold, beta=BETA) - ja.dpo_loss(
        POLICY, ja.no_reference(POLICY), beta=BETA
    )
    np.testing.assert_allclose(more, 1.5, rtol=1e-5)
