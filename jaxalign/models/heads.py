"""Heads on the hidden states: values at every step, scores of texts or of steps."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxalign.logprobs import shift_right


def readout(width: int, name: str) -> nn.Dense:
    """A float32 linear map to one number, initialised with std `1 / sqrt(width + 1)`.

    Source: Stiennon et al. 2020, https://arxiv.org/abs/2009.01325, appendix B.1 (reward head).
    """
    init = nn.initializers.normal((width + 1) ** -0.5)
    return nn.Dense(1, kernel_init=init, dtype=jnp.float32, name=name)


class ValueHead(nn.Module):
    """Value head: the value of the state in which each token was chosen.

      values[t] = w . hidden[t - 1] + b

    It starts at 0 everywhere: a random baseline would only add noise to the first advantages.
    """

    @nn.compact
    def __call__(
        self, hidden: jax.Array, mask: jax.Array, segments: jax.Array | None = None
    ) -> jax.Array:
        """`hidden [B, T, D]`, `mask [B, T]` -> `[B, T]`, 0 where no real token comes before t.

        With `segments [B, T]`, several texts in a row: none of the same text.
        """
        head = nn.Dense(1, kernel_init=nn.initializers.zeros, dtype=jnp.float32, name="readout")
        values = shift_right(head(hidden)[..., 0])
        begun = shift_right(jnp.cumsum(mask, axis=1, dtype=jnp.int32)) > 0
        if segments is not None:
            begun &= segments == shift_right(segments)
        return jnp.where(begun, values, 0.0)


class StepScoreHead(nn.Module):
    """Step-score head: `scores[t] = w . hidden[t] + b`, of the step that ends with token t."""

    @nn.compact
    def __call__(self, hidden: jax.Array, mask: jax.Array) -> jax.Array:
        """`hidden [B, T, D]`, `mask [B, T]` -> `[B, T]` float32, 0 where no token is."""
        scores = readout(hidden.shape[-1], "readout")(hidden.astype(jnp.float32))[..., 0]
        return jnp.where(mask, scores, 0.0)


def pooled(hidden: jax.Array, mask: jax.Array, pooling: str) -> jax.Array:
    """Pooled hidden states of a text, the input of the score head.

    Args:
      hidden: `[B, T, D]`, in which padding repeats the last real token.
      mask: `[B, T]` bool, true on real tokens.
      pooling: "mean" over real tokens, "both" that and the last one, "last" the last one.

    Returns:
      `[B, D]` float32, `[B, 2 D]` for both.
    """
    last = hidden[:, -1].astype(jnp.float32)
    if pooling == "last":
        return last
    total = jnp.where(mask[..., None], hidden.astype(jnp.float32), 0.0).sum(axis=1)
    mean = total / jnp.maximum(mask.sum(axis=1), 1).astype(jnp.float32)[:, None]
    return mean if pooling == "mean" else jnp.concatenate([mean, last], axis=1)


class ScoreHead(nn.Module):
    """One number a text, from its pooled hidden states: `score = w . pooled + b`."""

    @nn.compact
    def __call__(self, text: jax.Array, mask: jax.Array) -> jax.Array:
        """`text [B, D]` from `pooled`, `mask [B, T]` -> `[B]` float32; 0 of an empty text."""
        scores = readout(text.shape[-1], "readout")(text)[:, 0]
        return jnp.where(mask.any(axis=1), scores, 0.0)


def standardised_head(head: Mapping[str, Any], *, mean: float, deviation: float) -> dict[str, Any]:
    """A score head with the same ranking, whose scores have mean 0 and deviation 1.

      score' = (score - mean) / deviation

    The score is linear in every weight of its head, so the scale goes into all of them and the
    shift into the bias.

    Args:
      head: trained weights, with a `bias` or a `readout` that has one.
      mean, deviation: of the scores over some texts; deviation 0, a model that tells no texts
        apart, leaves the scale as it is.
    """
    scale = deviation or 1.0
    scaled: dict[str, Any] = jax.tree.map(lambda x: x / scale, dict(head))
    shift = np.float32(mean / scale)
    if "readout" in scaled:
        return scaled | {"readout": scaled["readout"] | {"bias": scaled["readout"]["bias"] - shift}}
    return scaled | {"bias": scaled["bias"] - shift}
