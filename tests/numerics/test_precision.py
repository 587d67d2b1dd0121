"""Exponentials, logarithms and their slopes where rounding could eat them."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxalign.numerics.precision import log1mexp, saturating_expm1


@pytest.mark.parametrize("x", [-700.0, -44.0, -20.0, -1e-9, 0.5, 3.0])
def test_the_slope_of_expm1_is_exp(x, x64):
    """Also far below 0, where exp(x) - 1 + 1 rounds to 0: IPO on forward KL multiplies it."""
    slope = jax.grad(saturating_expm1)(jnp.float64(x))
    assert float(slope) == pytest.approx(math.exp(x), rel=1e-13, abs=0)
    assert float(jax.grad(jax.grad(saturating_expm1))(jnp.float64(x))) == pytest.approx(
        math.exp(x), rel=1e-13, abs=0
    )


@pytest.mark.parametrize(
    ("x", "expected", "slope"),
    [
        (-1e-8, math.log(1e-8), -1e8),  # 1 - e^x = -x - ...
        (-30.0, -math.exp(-30), -math.exp(-30)),  # log(1 - e^x) = -e^x - ...
    ],
)
def test_log1mexp_near_0_and_far_from_it(x, expected, slope):
    found = jax.value_and_grad(log1mexp)(jnp.float32(x))
    np.testing.assert_allclose(found, (expected, slope), rtol=1e-6)
