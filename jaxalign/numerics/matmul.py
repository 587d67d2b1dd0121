"""Matrix product of a layer, with a gradient that is quick on CPUs too.

The gradient of the weights is `x^T g`. Asked for a product with a transposed left side, XLA's CPU
compiler takes a slow routine; a transposed copy and a plain product are quicker together. Other
platforms fuse the transposition, and get the product as it is.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

Factors = tuple[jax.Array, jax.Array]  # x and weights, or their gradients


def product(x: jax.Array, weights: jax.Array, dtype: DTypeLike | None = None) -> jax.Array:
    """Matrix product `x @ weights`.

    Args:
      x: `[..., D]`.
      weights: `[D, E]`.
      dtype: of the sums and of the result; None: that of the factors.

    Returns:
      `[..., E]`.
    """
    if jax.default_backend() != "cpu":
        return jnp.matmul(x, weights, preferred_element_type=dtype)
    return _product(dtype, x, weights)


def dot_general(
    x: jax.Array,
    weights: jax.Array,
    dimension_numbers: Any,
    precision: Any = None,
    preferred_element_type: DTypeLike | None = None,
) -> jax.Array:
    """`product` with the signature that `flax.linen.Dense` calls."""
    del dimension_numbers, precision
    return product(x, weights, preferred_element_type)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _product(dtype: DTypeLike | None, x: jax.Array, weights: jax.Array) -> jax.Array:
    return jnp.matmul(x, weights, preferred_element_type=dtype)


def _forward(
    dtype: DTypeLike | None, x: jax.Array, weights: jax.Array
) -> tuple[jax.Array, Factors]:
    return _product(dtype, x, weights), (x, weights)


def _backward(dtype: DTypeLike | None, factors: Factors, slope: jax.Array) -> Factors:
    """Gradients of `x` and of the weights: `g W^T` and `x^T g`."""
    del dtype
    x, weights = factors
    slope = slope.astype(jnp.result_type(x, weights))
    rows, slopes = x.reshape(-1, x.shape[-1]), slope.reshape(-1, slope.shape[-1])
    flipped = jax.lax.optimization_barrier(rows.T)
    x_grad = jnp.matmul(slope, weights.T).astype(x.dtype)
    return x_grad, jnp.matmul(flipped, slopes).astype(weights.dtype)


_product.defvjp(_forward, _backward)
