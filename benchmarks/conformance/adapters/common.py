"""What the adapters share."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

SINGLE = 1e-5  # for peers, or parts of them, that compute in float32


def with_gradients(loss: Callable, *inputs):
    """`loss(*inputs) -> scalar` and its gradient with respect to each input."""
    arrays = tuple(jnp.asarray(x, float) for x in inputs)
    value, gradients = jax.value_and_grad(loss, argnums=tuple(range(len(arrays))))(*arrays)
    return value, *gradients


def mean_with_gradients(losses: Callable, *inputs):
    """Unreduced losses of the inputs, and the gradients of their mean."""
    arrays = tuple(jnp.asarray(x, float) for x in inputs)

    def mean(*arrays):
        each = losses(*arrays)
        return each.mean(), each

    gradients, each = jax.grad(mean, tuple(range(len(arrays))), has_aux=True)(*arrays)
    return each, *gradients
