"""KTO: good and bad responses against the KL."""

import functools

import jax
import numpy as np

import jaxalign as ja
from tests.cases.losses.kto import CASES
from tests.checks.of_cases import checks_of

TestCases = checks_of(CASES)


WEIGHTED_KTO = functools.partial(
    ja.kto_loss, beta=0.5, kl=0.3, desirable_weight=1.2, undesirable_weight=0.7
)


def test_limits_of_kto():
    """A loss is at most its weight, and at the ends it is flat."""
    far = np.array([1e4, -1e4, 1e4, -1e4])
    labels = np.array([True, True, False, False])

    def loss(logps):
        return WEIGHTED_KTO(logps, np.zeros(4), labels)

    np.testing.assert_allclose(loss(far), [0, 1.2, 0.7, 0], rtol=1e-6)
    assert not np.any(jax.grad(lambda x: loss(x).sum())(far))


def test_a_larger_kl_asks_more_of_good_responses():
    zero, good = np.zeros(1), np.ones(1, bool)
    low, high = (ja.kto_loss(zero, zero, good, beta=1.0, kl=kl) for kl in (0.0, 1.0))
    assert float(high[0]) > float(low[0]) == 0.5
    low, high = (ja.kto_loss(zero, zero, ~good, beta=1.0, kl=kl) for kl in (0.0, 1.0))
    assert float(high[0]) < float(low[0]) == 0.5


def test_the_kl_estimate_is_never_negative():
    worse, better = np.array([-3.0, -1.0]), np.array([-1.0, -1.0])
    assert float(ja.kto_kl(worse, better, np.ones(2))) == 0
    assert float(ja.kto_kl(better, worse, np.ones(2))) == 1
    assert float(ja.kto_kl(better, worse, np.zeros(2))) == 0  # nothing but padding
