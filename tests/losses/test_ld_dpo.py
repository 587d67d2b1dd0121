"""LD-DPO: what is longer than the other is discounted."""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxalign as ja
from tests.cases.losses.ld_dpo import CASES
from tests.checks.of_cases import checks_of

TestCases = checks_of(CASES)


def test_what_is_longer_than_the_other_is_discounted():
    """LD-DPO: at 1 the plain sums and DPO, at 0 the tokens that both have."""
    logps = np.array([[-1.0, -2.0, -4.0, -8.0]])
    mask = np.array([[True, False, True, True]])

    def summed(alpha):
        return float(ja.length_desensitised_logps(logps, mask, np.array([2]), alpha=alpha)[0])

    assert (summed(1.0), summed(0.0), summed(0.25)) == (-13, -5, -7)


def test_length_desensitised_logps_take_a_batch():
    with pytest.raises(AssertionError):
        ja.length_desensitised_logps(jnp.zeros(3), jnp.ones(3, bool), jnp.ones(3), alpha=0.5)
