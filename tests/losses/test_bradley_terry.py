"""Bradley-Terry: comparisons of scores, margins, centering."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxalign as ja
from jaxalign import (
    bradley_terry_loss,
    centering_penalty,
)
from tests.cases.losses.bradley_terry import CASES
from tests.checks.of_cases import checks_of

LOG2 = math.log(2)
TestCases = checks_of(CASES)


@pytest.mark.parametrize("shape", [(3, 1), (1,)])
def test_margins_are_one_a_pair(shape):
    with pytest.raises(AssertionError):
        ja.bradley_terry_loss(jnp.zeros(3), margins=jnp.zeros(shape))


def test_margins_by_hand():
    # sigmoid(log 3) = 3/4; the margin takes log 3 away
    assert float(ja.bradley_terry_loss(jnp.log(3.0))) == pytest.approx(-math.log(0.75))
    assert float(ja.bradley_terry_loss(jnp.log(3.0), margins=math.log(3))) == pytest.approx(LOG2)


def test_bradley_terry_ignores_a_constant_and_centering_does_not():
    chosen, rejected = jnp.array([2.0, 1.0]), jnp.array([1.0, -1.0])
    loss, shifted = (bradley_terry_loss((chosen + c) - (rejected + c)) for c in (0.0, 4.0))
    np.testing.assert_array_equal(loss, shifted)

    def penalty(c):
        return centering_penalty(chosen + c, rejected + c).sum()

    # (3 + 2 c)^2 + (2 c)^2 is least at c = -3/4
    assert float(jax.grad(penalty)(-0.75)) == 0


def test_bradley_terry_fits_the_rewards(x64):
    """Scores equal to the true rewards are a stationary point of the expected loss."""
    rewards = jnp.array([0.3, -1.2, 2.0])

    def loss(scores):
        gaps, truth = (x[:, None] - x[None, :] for x in (scores, rewards))
        return jnp.sum(jax.nn.sigmoid(truth) * bradley_terry_loss(gaps))

    np.testing.assert_allclose(jax.grad(loss)(rewards), 0, atol=1e-15)
    assert jnp.abs(jax.grad(loss)(rewards * 2)).max() > 0.01
