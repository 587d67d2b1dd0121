"""Nash-MD: against a mixture of policy and reference."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import jaxalign as ja
from tests.cases.losses.nash_md import CASES
from tests.checks.of_cases import checks_of

RNG = np.random.default_rng(0)
TestCases = checks_of(CASES)


def test_nash_md_is_a_policy_gradient():
    """Only the log-probability in front is differentiated: the slope is minus the value."""
    policy, reference, wins = RNG.normal(size=(3, 9)).astype(np.float32)
    slope = jax.grad(lambda x: ja.nash_md_loss(x, reference, wins, beta=0.3).sum())(policy)
    value = wins - 0.5 - 0.3 * (policy - reference)
    np.testing.assert_allclose(slope, -value, rtol=1e-5, atol=1e-6)


def test_nash_md_rests_at_the_regularised_best_response(x64):
    """pi_ref exp(P / beta) / Z, P the chances to beat the opponent."""
    reference, wins, beta = np.log([0.2, 0.5, 0.3]), np.array([0.9, 0.4, 0.2]), 0.5

    def slope(logits):
        chances = jax.lax.stop_gradient(jax.nn.softmax(logits))

        def loss(logits):
            logps = jax.nn.log_softmax(logits)
            return chances @ ja.nash_md_loss(logps, reference, wins, beta=beta)

        return jax.grad(loss)(logits)

    np.testing.assert_allclose(slope(reference + wins / beta), 0, atol=1e-12)
    assert np.abs(slope(reference)).max() > 0.05


def test_the_opponent_is_one_policy_at_either_end():
    """Also where the other forbids a token."""
    policy, reference = jnp.array([[0.0, 1.0, -jnp.inf]]), jnp.array([[2.0, -jnp.inf, 0.0]])
    mix = functools.partial(ja.mixture_logits, policy, reference)
    np.testing.assert_allclose(mix(mixture=0.0), jax.nn.log_softmax(policy), rtol=1e-6)
    np.testing.assert_allclose(mix(mixture=1.0), jax.nn.log_softmax(reference), rtol=1e-6)
    # between, only what both allow
    assert np.isfinite(mix(mixture=0.5)).tolist() == [[True, False, False]]
