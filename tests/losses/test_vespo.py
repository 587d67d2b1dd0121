"""VESPO: weights of whole responses."""

import jax.numpy as jnp
import numpy as np

from jaxalign import vespo_weights
from tests.cases.losses.vespo import CASES
from tests.checks.of_cases import checks_of

TestCases = checks_of(CASES)


def test_vespo_takes_an_advantage_of_0_for_a_good_one():
    """At k = 1, rate 0 the weight is the ratio, at k = 0, rate 0 it is 1."""
    logps, mask = jnp.asarray([[0.5], [0.5]]), jnp.ones((2, 1), bool)
    advantages = jnp.asarray([0.0, -1.0])
    weights = vespo_weights(
        logps, 0 * logps, mask, advantages, positive=(1.0, 0.0), negative=(0.0, 0.0)
    )
    np.testing.assert_allclose(weights, [np.exp(0.5), 1.0], rtol=1e-6)
