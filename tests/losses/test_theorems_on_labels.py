"""What is true of all losses on good and bad responses."""

import functools
import math

import jax
import numpy as np
import pytest

import jaxalign as ja

LOG2 = math.log(2)


WEIGHTED_KTO = functools.partial(
    ja.kto_loss, beta=0.5, kl=0.3, desirable_weight=1.2, undesirable_weight=0.7
)


ON_LABELS = (
    WEIGHTED_KTO,
    functools.partial(ja.bco_loss, beta=0.5, shift=0.3),
    functools.partial(ja.apo_zero_unpaired_loss, beta=0.5),
)


@pytest.mark.parametrize("loss", ON_LABELS)
def test_good_ones_become_likelier_and_bad_ones_less_likely(loss):
    logps = np.linspace(-4.0, 4.0, 9)
    for good in (True, False):
        labels = np.full(9, good)
        slopes = jax.grad(lambda x, y=labels: loss(x, np.zeros(9), y).sum())(logps)
        assert (slopes < 0).all() if good else (slopes > 0).all()


def test_values_where_the_reward_is_the_reference_point():
    """KTO half a weight, BCO log 2, APO 1/2."""
    labels = np.array([True, False])
    kto, bco, apo = ON_LABELS
    np.testing.assert_allclose(kto(np.full(2, 0.3), np.zeros(2), labels), [0.6, 0.35])
    # a reward of 0.5 * 0.6 is the shift
    np.testing.assert_allclose(bco(np.full(2, 0.6), np.zeros(2), labels), LOG2, rtol=1e-6)
    np.testing.assert_allclose(apo(np.zeros(2), np.zeros(2), labels), 0.5)
