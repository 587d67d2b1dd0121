"""IPO: on sums and on averages."""

import functools

import jax
import numpy as np

import jaxalign as ja
from jaxalign import PairLengths
from tests.cases.losses.ipo import CASES
from tests.checks.of_cases import checks_of
from tests.pairs import BETA, MANY, POLICY, REFERENCE

TestCases = checks_of(CASES)


def test_ipo_of_averages(x64):
    """Of texts twice as long with twice the log-ratio the same; of single tokens IPO itself."""
    double = functools.partial(jax.tree.map, lambda x: 2 * x)
    once = ja.averaged_ipo_loss(POLICY, REFERENCE, MANY, beta=BETA)
    twice = ja.averaged_ipo_loss(*map(double, (POLICY, REFERENCE, MANY)), beta=BETA)
    np.testing.assert_allclose(twice, once, rtol=1e-12)
    ones = PairLengths(chosen=np.ones(40), rejected=np.ones(40))
    np.testing.assert_array_equal(
        ja.averaged_ipo_loss(POLICY, REFERENCE, ones, beta=BETA),
        ja.ipo_loss(POLICY, REFERENCE, beta=BETA),
    )
