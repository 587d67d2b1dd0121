"""CISPO: capped ratios as weights of REINFORCE."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign import cispo_loss
from tests.cases.losses.cispo import CASES
from tests.checks.of_cases import checks_of
from tests.decisions import ADVANTAGES, CLOSE, B, T, draw

TestCases = checks_of(CASES)


def test_cispo_silences_no_token(x64):
    """Its gradient is the clipped ratio times the advantage, on both sides of both bounds."""
    logps, behaviour, _ = draw(2, spread=2.0)
    each = np.broadcast_to(ADVANTAGES[:, None], (B, T))

    def loss(x):
        return cispo_loss(x, behaviour, each, highest=1.5, lowest=0.7).sum()

    ratios = np.exp(logps - behaviour)
    assert (ratios > 1.5).any() and (ratios < 0.7).any()
    expected = -np.clip(ratios, 0.7, 1.5) * each
    np.testing.assert_allclose(jax.grad(loss)(jnp.asarray(logps)), expected, **CLOSE)
