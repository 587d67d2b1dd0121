"""REINFORCE++: returns whitened over the batch."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign import (
    discounted_returns,
    reinforce_plus_plus_advantages,
)
from tests.cases.advantages.reinforce_plus_plus import CASES
from tests.checks.of_cases import checks_of
from tests.oracles import statistics

CLOSE = {"rtol": 1e-10, "atol": 1e-10}
ULP = np.float32(0.1) + np.float32(0.6)  # 0.70000005, and 0.7 is the next float32 below
TestCases = checks_of(CASES)
advantages = jax.jit(reinforce_plus_plus_advantages, static_argnames="gamma")


def test_returns_are_whitened_over_all_tokens(x64):
    rng = np.random.default_rng(2)
    rewards, mask = rng.normal(size=(4, 6)), rng.random((4, 6)) < 0.7
    ours = advantages(rewards, mask, gamma=0.9)
    returns = np.asarray(discounted_returns(rewards, mask, gamma=0.9))
    np.testing.assert_allclose(ours, statistics.whiten(returns, mask, True), **CLOSE)


def test_returns_that_differ_by_rounding_are_not_whitened():
    rewards, mask = jnp.array([[0.0, ULP], [0.0, 0.7]]), jnp.ones((2, 2), bool)
    assert not advantages(rewards, mask, gamma=1.0).any()
