"""Hinge loss (SLiC)."""

import functools

import numpy as np
import pytest

import jaxalign as ja
from tests.cases.losses.hinge import CASES
from tests.checks.of_cases import checks_of
from tests.pairs import pair, value_and_slopes

TestCases = checks_of(CASES)


@pytest.mark.parametrize("margin", [1.0, 1.5])
def test_hinge_leaves_pairs_at_and_beyond_the_margin_alone(margin):
    loss = functools.partial(ja.hinge_loss, reference=pair(0, 0), beta=1.0)
    value, chosen, rejected = value_and_slopes(loss, pair(margin, 0))
    assert value == 0 and not np.any(chosen) and not np.any(rejected)
    assert value_and_slopes(loss, pair(0.5, 0))[0] == 0.5
