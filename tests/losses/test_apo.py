"""APO: anchored preference losses."""

import functools

import numpy as np

import jaxalign as ja
from tests.cases.losses.apo import CASES
from tests.checks.of_cases import checks_of
from tests.pairs import pair, value_and_slopes

TestCases = checks_of(CASES)


def test_apo_down_lowers_both_where_they_are_told_apart():
    """D'Oosterlinck et al. 2024: the rejected one more so."""
    zero = pair(0, 0)
    loss = functools.partial(ja.apo_down_loss, reference=zero, beta=1.0)
    _, chosen, rejected = value_and_slopes(loss, pair(-0.5, -2.0))
    assert 0 < float(chosen[0]) < float(rejected[0])


def test_apo_saturates():
    """Bounded by 2, and without gradient where the policy is far from the reference."""
    for loss in (ja.apo_zero_loss, ja.apo_down_loss):
        bounded = functools.partial(loss, reference=pair(0, 0), beta=1.0)
        for far in (pair(200, -200), pair(-200, 200), pair(-200, -200)):
            value, chosen, rejected = value_and_slopes(bounded, far)
            assert 0 <= value <= 2
            if loss is ja.apo_zero_loss:
                assert not np.any(chosen) and not np.any(rejected)
