"""Random decisions of a policy, some masked, with their advantages."""

import jax.numpy as jnp
import numpy as np

B, T = 4, 5

ADVANTAGES = np.array([1.5, -0.5, 0.0, -2.0])

CLOSE = {"rtol": 1e-12, "atol": 1e-12}


def draw(seed, spread=0.5):
    """Log-probabilities under behaviour and policy, and a mask with an empty row."""
    rng = np.random.default_rng(seed)
    behaviour = -rng.exponential(size=(B, T))
    mask = rng.random((B, T)) < 0.7
    mask[2] = False
    return behaviour + spread * rng.normal(size=(B, T)), behaviour, mask


def spread(losses, mask):
    """Losses of tokens or of responses as one number, by the sum over what is real."""
    return jnp.sum(losses * mask) if losses.ndim == 2 else jnp.sum(losses * mask.any(axis=1))
