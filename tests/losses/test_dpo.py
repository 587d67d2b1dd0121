"""DPO: by hand, at the limits, under label noise."""

import functools

import numpy as np
import pytest

import jaxalign as ja
from jaxalign import (
    PairLogps,
    dpo_loss,
    robust_dpo_loss,
)
from tests.cases.losses.dpo import CASES
from tests.checks.of_cases import checks_of
from tests.pairs import pair, value_and_slopes

TestCases = checks_of(CASES)


def test_dpo_by_hand():
    # rewards 0.5 (-1 + 3) = 1 and 0.5 (-2 + 1) = -0.5: u = 1.5
    policy, reference = pair(-1, -2), pair(-3, -1)
    rewards = ja.implicit_rewards(policy, reference, beta=0.5)
    assert (rewards.chosen.tolist(), rewards.rejected.tolist()) == ([1], [-0.5])
    loss = float(ja.dpo_loss(policy, reference, beta=0.5)[0])
    assert loss == pytest.approx(np.log1p(np.exp(-1.5)))
    # a tenth of the label on the other side adds 0.1 u, without noise it takes it away, over 0.8
    smoothed = ja.dpo_loss(policy, reference, beta=0.5, label_smoothing=0.1)
    robust = ja.robust_dpo_loss(policy, reference, beta=0.5, label_smoothing=0.1)
    assert float(smoothed[0]) == pytest.approx(loss + 0.15)
    assert float(robust[0]) == pytest.approx(loss - 0.15 / 0.8)


@pytest.mark.parametrize(("gap", "slope"), [(1e4, 0), (-1e4, -1)])
def test_dpo_is_flat_where_right_and_straight_where_wrong(gap, slope):
    loss = functools.partial(ja.dpo_loss, reference=pair(0, 0), beta=1.0)
    value, chosen, rejected = value_and_slopes(loss, pair(gap, 0))
    assert (value, float(chosen[0]), float(rejected[0])) == (max(-gap, 0), slope, -slope)


def test_robust_dpo_is_unbiased_under_label_noise(x64):
    """Flip each label with probability e: the mean of the robust loss is the clean loss."""
    rng = np.random.default_rng(2)
    policy, reference = (PairLogps(chosen=c, rejected=r) for c, r in rng.normal(size=(2, 2, 20)))
    e = 0.3

    def flip(pair):
        return PairLogps(chosen=pair.rejected, rejected=pair.chosen)

    noisy = (1 - e) * robust_dpo_loss(policy, reference, beta=1.0, label_smoothing=e)
    noisy += e * robust_dpo_loss(flip(policy), flip(reference), beta=1.0, label_smoothing=e)
    np.testing.assert_allclose(noisy, dpo_loss(policy, reference, beta=1.0), atol=1e-12)
