"""The matrix product of a layer, with a gradient that is quick on CPUs too.

The gradient of the weights is `x^T g`. Asked for a product with a transposed left side, XLA's CPU
compiler takes a slow routine; a transposed copy and a plain product are quicker together. Other
platforms fuse the transposition, and get the product as it is.
"""

import functools

import jax
import jax.numpy as jnp


def product(x: jax.Array, weights: jax.Array, dtype=None) -> jax.Array:
    """`x @ weights`.

    Args:
      x: `[..., D]`.
      weights: `[D, E]`.
      dtype: in which sums are held and the result is returned; None: that of the factors.

    Returns:
      `[..., E]`.
    """
    if jax.default_backend() != "cpu":
        return jnp.matmul(x, weights, preferred_element_type=dtype)
    return _product(dtype, x, weights)


def dot_general(x, weights, dimension_numbers, precision=None, preferred_element_type=None):
    """`product` for `flax.linen.Dense`."""
    return product(x, weights, preferred_element_type)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _product(dtype, x, weights):
    return jnp.matmul(x, weights, preferred_element_type=dtype)


def _forward(dtype, x, weights):
    return _product(dtype, x, weights), (x, weights)


def _backward(dtype, factors, slope):
    x, weights = factors
    slope = slope.astype(jnp.result_type(x, weights))
    rows, slopes = x.reshape(-1, x.shape[-1]), slope.reshape(-1, slope.shape[-1])
    flipped = jax.lax.optimization_barrier(rows.T)
    x_grad = jnp.matmul(slope, weights.T).astype(x.dtype)
    return x_grad, jnp.matmul(flipped, slopes).astype(weights.dtype)


_product.defvjp(_forward, _backward)
