"""Random keys of examples."""

import jax


def example_keys(key: jax.Array, index: jax.Array) -> jax.Array:
    """Random keys of the examples of a batch, each folded from its global index: an example has the
    same noise in whatever batch it stands.

    Args:
      key: of the step.
      index: `[B]`, or `[B, S]` of the texts in packed rows.
    """
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, index.reshape(-1))
    return keys.reshape(index.shape)
