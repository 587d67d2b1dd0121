"""SAPO: a smooth gate instead of a clip."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign import sapo_loss
from tests.cases.losses.sapo import CASES
from tests.checks.of_cases import checks_of

TestCases = checks_of(CASES)


def test_the_gate_is_bounded_and_closes(x64):
    """SAPO: a good token has a loss in [-4 A / tau, 0], and its gradient dies at both ends."""
    logps, zero, one = jnp.array([-50.0, 0.0, 5.0]), jnp.zeros(3), jnp.ones(3)

    def loss(x):
        return sapo_loss(x, zero, one, positive_temperature=2.0)

    values, slopes = loss(logps), jax.grad(lambda x: loss(x).sum())(logps)
    # sigmoid(-2) 4 / 2 where the token is never said
    np.testing.assert_allclose(values, [-2 / (1 + np.exp(2)), -1, -2], atol=1e-12)
    assert float(slopes[1]) == -1 and abs(slopes[0]) < 1e-12 and abs(slopes[2]) < 1e-12


def test_negative_tokens_have_a_gate_of_their_own():
    """Of two tokens at ratio 2, the bad one follows `negative_temperature`, and so does A = 0."""
    logps, zero = jnp.full(3, np.log(2.0)), jnp.zeros(3)
    losses = sapo_loss(logps, zero, jnp.array([1.0, -1.0, 0.0]), negative_temperature=8.0)
    np.testing.assert_allclose(
        losses, [-4 / (1 + np.exp(-1)), 0.5 / (1 + np.exp(-8)), 0], rtol=1e-6
    )


def test_sapo_of_unsigned_advantages():
    """2 sigmoid(0) 4 / 2 of the wrong sign, had -2 wrapped around."""
    zero, two = jnp.zeros(1), jnp.asarray([2], jnp.uint32)
    assert sapo_loss(zero, zero, two, positive_temperature=2.0).tolist() == [-2.0]
