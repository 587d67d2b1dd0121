"""XPO: DPO with a bonus for exploration."""

import functools

import jax
import numpy as np

import jaxalign as ja
from tests.cases.losses.xpo import CASES
from tests.checks.of_cases import checks_of

RNG = np.random.default_rng(0)
TestCases = checks_of(CASES)


def test_without_bonus_xpo_is_dpo():
    policy, reference = (
        ja.PairLogps(chosen=x[0], rejected=x[1]) for x in RNG.normal(size=(2, 2, 9))
    )
    sample = RNG.normal(size=9)
    xpo = functools.partial(ja.xpo_loss, policy, reference, beta=0.5)
    dpo = ja.dpo_loss(policy, reference, beta=0.5)
    np.testing.assert_array_equal(xpo(sample, alpha=0.0), dpo)
    slope = jax.grad(lambda x: xpo(x, alpha=0.3).sum())(sample)
    np.testing.assert_allclose(slope, 0.3, rtol=1e-6)  # descent makes the sample less likely
