"""AlphaPO: SimPO with a reward of another shape."""

import jax.numpy as jnp
import numpy as np

from jaxalign import PairLengths, PairLogps, losses
from tests.cases.losses.alphapo import CASES
from tests.checks.of_cases import checks_of

TestCases = checks_of(CASES)


def test_alphapo_keeps_its_margin_next_to_huge_rewards(x64):
    """Equal responses of probability exp(-40): rewards of 1e34, whose difference is exactly 0."""
    pair = PairLogps(chosen=jnp.array([-40.0]), rejected=jnp.array([-40.0]))
    one = PairLengths(chosen=jnp.ones(1), rejected=jnp.ones(1))
    loss = losses.alphapo.alphapo_loss(pair, one, beta=0.1, gamma=0.5, alpha=2.0)
    np.testing.assert_allclose(loss, np.log1p(np.exp(0.5)), rtol=1e-14)
