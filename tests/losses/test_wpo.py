"""WPO: pairs weighed by what the policy would write."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxalign as ja
from jaxalign.logprobs import log_collisions
from tests.cases.losses.wpo import CASES
from tests.checks.of_cases import checks_of

TestCases = checks_of(CASES)


def test_wpo_weighs_what_the_policy_would_write():
    logps = -np.random.default_rng(1).exponential(1.0, (6, 4)).astype(np.float32)
    mask = np.arange(4) < np.arange(6)[:, None]
    weights = ja.wpo_weights(logps, mask)
    assert ((weights > 0) & (weights <= 1)).all() and weights[0] == 1 > weights[-1]
    np.testing.assert_array_equal(ja.wpo_weights(np.zeros((6, 4)), mask), 1)
    # a uniform policy draws any token as often as its chance to draw one twice: aligned, 1
    uniform = np.full((6, 4), -np.log(7.0), np.float32)
    np.testing.assert_array_equal(ja.wpo_weights(uniform, mask, uniform), 1)


def test_wpo_subtracts_in_float32():
    """By hand, numbers that bfloat16 holds but whose difference it does not: 1 - 2^-9."""
    logp, collision = (jnp.asarray([[x]], jnp.bfloat16) for x in (-(2.0**-9), -1.0))
    weights = ja.wpo_weights(logp, jnp.ones((1, 1), bool), collision)
    np.testing.assert_allclose(weights, [np.exp(1 - 2.0**-9)], rtol=1e-6)


def test_samples_weigh_1_under_wpo():
    """E p(v) / sum p^2 = 1, whatever the policy: the expected weight of a token of its own."""
    for scale in (0.1, 1.0, 5.0):
        logps = jax.nn.log_softmax(scale * jax.random.normal(jax.random.key(0), (50,)))
        collisions = jnp.full((50, 1), log_collisions(logps))
        weights = ja.wpo_weights(logps[:, None], jnp.ones((50, 1), bool), collisions)
        assert float(jnp.sum(jnp.exp(logps) * weights)) == pytest.approx(1, abs=1e-5)
