"""Slopes of exponentials where rounding could eat them."""

import math

import jax
import jax.numpy as jnp
import pytest

from jaxalign.precision import saturating_expm1


@pytest.mark.parametrize("x", [-700.0, -44.0, -20.0, -1e-9, 0.5, 3.0])
def test_the_slope_of_expm1_is_exp(x, x64):
    """Also far below 0, where exp(x) - 1 + 1 rounds to 0: IPO on forward KL multiplies it."""
    slope = jax.grad(saturating_expm1)(jnp.float64(x))
    assert float(slope) == pytest.approx(math.exp(x), rel=1e-13, abs=0)
    assert float(jax.grad(jax.grad(saturating_expm1))(jnp.float64(x))) == pytest.approx(
        math.exp(x), rel=1e-13, abs=0
    )
