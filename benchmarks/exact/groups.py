"""Groups of responses to one prompt: all of them, and what the library makes of their scores."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.exact.world import RESPONSES


def all_groups(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Every unordered group, and in how many orders it can be drawn.

    Returns:
      `[N, size]` numbers of responses, `[N]` counts that sum to R^size.
    """
    groups = list(itertools.combinations_with_replacement(range(len(RESPONSES)), size))
    orders = [
        math.factorial(size) / math.prod(math.factorial(group.count(one)) for one in set(group))
        for group in groups
    ]
    return np.array(groups, np.int32), np.array(orders)


def probabilities(logps: jax.Array, groups: np.ndarray, orders: np.ndarray) -> jax.Array:
    """`[N]`: how likely each group is under a policy with these log-probabilities `[R]`."""
    return jnp.asarray(orders, logps.dtype) * jnp.exp(jnp.sum(logps[groups], axis=1))
