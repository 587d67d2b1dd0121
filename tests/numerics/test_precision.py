"""Exponentials, logarithms and their slopes where rounding could eat them."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxalign import (
    exact_kl,
    generalised_jsd_loss,
    mixture_logits,
)
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


def test_wide_means_the_wider_of_two(x64):
    """Beside float64, float32 logits are worth all their digits: nothing is rounded in between."""
    narrow, wide = np.asarray([0.1, 2.3, -1.7], np.float32), np.asarray([1.0, 0.3, -2.9])
    p, q = (np.exp(z) / np.exp(z).sum() for z in (narrow.astype(float), wide))
    middle = 0.25 * q + 0.75 * p  # q is the teacher
    jsd = 0.25 * q @ np.log(q / middle) + 0.75 * p @ np.log(p / middle)
    mixed = 0.25 * np.log(q) + 0.75 * np.log(p)
    logits = jnp.asarray(narrow), jnp.asarray(wide)
    found = generalised_jsd_loss(*logits, mixture=0.25), mixture_logits(*logits, mixture=0.25)
    np.testing.assert_allclose(exact_kl(*logits), p @ np.log(p / q), rtol=1e-13)
    np.testing.assert_allclose(found[0], jsd, rtol=1e-13)
    np.testing.assert_allclose(found[1], mixed, rtol=1e-13)
