"""Floating-point rules of every formula: at least float32, and no overflow of exponentials."""

import math
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike


def widen(*arrays: ArrayLike) -> tuple[jax.Array, ...]:
    """The arrays in their common floating type, float32 or wider.

    Integers and bfloat16 become float32, so that sums and differences of log-probabilities are not
    rounded to 8 bits; float64 stays float64.
    """
    dtype = jnp.promote_types(jnp.result_type(*arrays), jnp.float32)
    return tuple(jnp.asarray(array, dtype) for array in arrays)


def rounding(scale: jax.Array | np.ndarray) -> Any:
    """Tolerance within which two numbers of a magnitude count as equal but for rounding.

      4 eps scale,  eps 1.2e-7 in float32, 2.2e-16 in float64

    So 0.1 + 0.6 and 0.7 are equal, 1 and 1.00001 are not, and neither are 1e6 and 1e6 + 1.

    Args:
      scale: `[...]` magnitude of the numbers, or of the terms that they are sums of.

    >>> one = jnp.float32(1.0)
    >>> bool(abs(jnp.float32(0.1) + jnp.float32(0.6) - jnp.float32(0.7)) <= rounding(one))
    True
    """
    return 4 * cast(float, jnp.finfo(scale.dtype).eps.item()) * scale


def settled_sum(*terms: jax.Array) -> jax.Array:
    """Sum of the terms, exactly 0 where they cancel but for rounding.

    >>> float(settled_sum(*jnp.float32([0.1, 0.6, -0.7])))
    0.0
    """
    total, scale = sum(terms, 0 * terms[0]), sum(map(jnp.abs, terms), 0 * terms[0])
    left = jax.lax.stop_gradient(total)
    return total - jnp.where(jnp.abs(left) <= rounding(scale), left, 0)


def saturation(dtype: DTypeLike) -> float:
    """Exponent at which `saturating_exp` becomes linear: 44.4 in float32, 354.9 in float64.

      log(max float) / 2

    >>> round(saturation(jnp.float32), 1)
    44.4
    """
    return math.log(float(cast(float, jnp.finfo(dtype).max))) / 2


def saturating_exp(x: jax.Array) -> jax.Array:
    """Exponential that grows linearly, along its tangent, where it would overflow.

      exp(x) for x <= c,  exp(c) (1 + x - c) for x > c,  c = log(max float) / 2

    c is 44.4 in float32 and 354.9 in float64. Products and sums of such numbers stay finite, and
    unlike a clamp the tangent keeps a gradient that points the right way.

    >>> float(saturating_exp(jnp.float32(0.0))), float(jnp.exp(jnp.float32(1e4)))
    (1.0, inf)
    >>> f"{saturating_exp(jnp.float32(1e4)):.2g}"
    '1.8e+23'
    """
    knee = saturation(x.dtype)
    return jnp.exp(jnp.minimum(x, knee)) * (1 + jnp.maximum(x - knee, 0))


@jax.custom_jvp
def saturating_expm1(x: jax.Array) -> jax.Array:
    """Exponential less 1, exact near 0, with the linear growth of `saturating_exp`.

    >>> float(saturating_expm1(jnp.float32(1e-10)))
    1.000000013351432e-10
    """
    return jnp.where(x < 1, jnp.expm1(x), saturating_exp(x) - 1)


@saturating_expm1.defjvp
def _saturating_expm1_jvp(
    primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """Derivative exp(x): JAX takes expm1(x) + 1, which is exactly 0 below -37 (-17 in float32)."""
    (x,), (tangent,) = primals, tangents
    knee = saturation(x.dtype)
    return saturating_expm1(x), jnp.exp(jnp.minimum(x, knee)) * tangent


def log1mexp(x: jax.Array) -> jax.Array:
    """Logarithm log(1 - exp(x)) for x < 0, without cancellation on either side of -log 2.

    Source: Maechler 2012, https://cran.r-project.org/web/packages/Rmpfr/vignettes/log1mexp-note.pdf

    >>> float(log1mexp(jnp.float32(-1e-10)))  # log 1e-10
    -23.025850296020508
    """
    near = x > -math.log(2)
    far = jnp.where(near, -1, x)  # log1p has no finite slope at exp(0)
    return jnp.where(near, jnp.log(-jnp.expm1(x)), jnp.log1p(-jnp.exp(far)))
