"""GMPO: the geometric mean of ratios."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign import gmpo_loss
from tests.cases.losses.gmpo import CASES
from tests.checks.of_cases import checks_of
from tests.decisions import ADVANTAGES, CLOSE, draw

TestCases = checks_of(CASES)


def test_the_geometric_mean_has_the_gradient_of_the_mean(x64):
    """GMPO on policy: the advantage over the length at every token."""
    _, behaviour, mask = draw(1)

    def loss(x):
        return gmpo_loss(x, behaviour, mask, ADVANTAGES, clip_range=0.4).sum()

    lengths = np.maximum(mask.sum(axis=1, keepdims=True), 1)
    found = jax.grad(loss)(jnp.asarray(behaviour))
    np.testing.assert_allclose(found, -ADVANTAGES[:, None] * mask / lengths, **CLOSE)
