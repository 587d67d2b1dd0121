"""Randomness of examples."""

import jax


def example_keys(key, index):
    """One key a row, folded from its global example index: the same noise in whatever batch it
    travels.
    """
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, index)
