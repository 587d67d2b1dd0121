"""Comparison of whole trees."""

import jax
import numpy as np


def assert_same(ours, expected, **close: float):
    """Trees of as many leaves, each close to the other's; infinite where it is infinite."""
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(np.asarray(one, float), np.asarray(other, float), **close)
