"""Floating point manners of every formula: at least float32, and no overflow of exponentials."""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def widen(*arrays: ArrayLike) -> tuple[jax.Array, ...]:
    """The arrays in their common floating type, float32 or wider.

    Integers and bfloat16 become float32, so that sums and differences of log-probabilities are not
    rounded to 8 bits; float64 stays float64.
    """
    dtype = jnp.promote_types(jnp.result_type(*arrays), jnp.float32)
    return tuple(jnp.asarray(array, dtype) for array in arrays)


def saturating_exp(x: jax.Array) -> jax.Array:
    """exp(x), continued by its tangent from where it reaches the root of the largest float.

      exp(x) for x <= c,  exp(c) (1 + x - c) for x > c,  c = log(max float) / 2

    c is 44.4 in float32 and 354.9 in float64. Products and sums of such numbers stay finite, and
    unlike a clamp the tangent keeps a gradient that points the right way.

    >>> float(saturating_exp(jnp.float32(0.0))), float(jnp.exp(jnp.float32(1e4)))
    (1.0, inf)
    >>> f"{saturating_exp(jnp.float32(1e4)):.2g}"
    '1.8e+23'
    """
    knee = math.log(float(jnp.finfo(x.dtype).max)) / 2
    return jnp.exp(jnp.minimum(x, knee)) * (1 + jnp.maximum(x - knee, 0))
