"""Quantised frozen weights: bfloat16, or int8 with a float32 scale for every output.

  W_ij ~ scale_j q_ij        scale_j = max_i |W_ij| / 127        y_j = scale_j sum_i x_i q_ij

Weights only, symmetric; activations are as before.

Source: Jacob et al. 2017, https://arxiv.org/abs/1712.05877, Eq. 1, with zero point 0 and a scale a
channel, as in Krishnamoorthi 2018, https://arxiv.org/abs/1806.08342.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

LEVELS = 127
TABLES = ("embedding", "positions", "unembedding")
PRECISIONS = ("float32", "bfloat16", "int8")


def quantised(params: dict, precision: str) -> dict:
    """Parameters with their dense kernels in that precision.

    Args:
      params: frozen, float32; norms and biases stay as they are.
      precision: "float32", "bfloat16", or "int8", which keeps the tables of embeddings in bfloat16.
    """
    flat: dict[str, Any] = {}
    for path, array in flatten_dict(params, sep="/").items():
        name = path.rpartition("/")[2]
        if precision == "int8" and name == "kernel":
            flat[path], flat[f"{path}_scale"] = to_int8(np.asarray(array))
        elif precision != "float32" and name in (*TABLES, "kernel"):
            flat[path] = np.asarray(array).astype(jnp.bfloat16)
        else:
            flat[path] = array
    return unflatten_dict(flat, sep="/")


def to_int8(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Int8 kernel `[..., inputs, outputs]`, and its float32 scales `[..., outputs]`.

    >>> to_int8(np.array([[2.0, 0.0], [-4.0, 0.0]]))[0].tolist()
    [[64, 0], [-127, 0]]
    """
    largest = np.abs(kernel).max(axis=-2)
    scales = np.where(largest > 0, largest / LEVELS, 1).astype(np.float32)
    return np.rint(kernel / scales[..., None, :]).astype(np.int8), scales


def weights_of(params: dict) -> dict:
    """Dequantised parameters: the weights as float32 NumPy arrays."""
    flat = {path: np.asarray(array) for path, array in flatten_dict(params, sep="/").items()}
    scales = {path: flat.pop(path) for path in list(flat) if path.endswith("/kernel_scale")}
    flat = {path: array.astype(np.float32) for path, array in flat.items()}
    for path, scale in scales.items():
        flat[path.removesuffix("_scale")] *= scale[..., None, :]
    return unflatten_dict(flat, sep="/")


def floats(params: dict) -> dict:
    """Parameters with float32 embedding tables, as the transformer takes them."""
    flat: dict[str, Any] = flatten_dict(params, sep="/")
    for path, array in flat.items():
        if path.rpartition("/")[2] in TABLES:
            flat[path] = jnp.asarray(array, jnp.float32)
    return unflatten_dict(flat, sep="/")


def dense(module: nn.Dense, x: jax.Array, call: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """Output of a dense layer, its kernel quantised or not.

    Args:
      module: the layer, bound.
      x: `[..., inputs]`.
      call: the layer's own method, for a kernel that is not quantised.

    Returns:
      `[..., outputs]`.
    """
    if not module.has_variable("params", "kernel_scale"):
        return call(x)
    kernel, scale = (module.get_variable("params", name) for name in ("kernel", "kernel_scale"))
    dtype = jnp.result_type(x) if module.dtype is None else module.dtype
    y = (x.astype(dtype) @ kernel.astype(dtype)) * _row(scale, x.ndim).astype(dtype)
    if not module.use_bias:
        return y
    return y + _row(module.get_variable("params", "bias"), x.ndim).astype(dtype)


def _row(vector: jax.Array, dimensions: int) -> jax.Array:
    return vector.reshape((1,) * (dimensions - 1) + (-1,))
