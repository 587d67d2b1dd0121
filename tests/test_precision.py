"""Exponentials and logarithms where the plain formula loses all digits: series by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxalign.precision import log1mexp


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
