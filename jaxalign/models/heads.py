"""Heads on the hidden states: values at every step, scores of texts or of steps."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxalign.logprobs import shift_right
from jaxalign.models.architecture import TransformerConfig


def readout(width: int, name: str) -> nn.Dense:
    """A float32 linear map to one number, initialised with std `1 / sqrt(width + 1)`.

    Source: Stiennon et al. 2020, https://arxiv.org/abs/2009.01325, appendix B.1 (reward head).
    """
    init = nn.initializers.normal((width + 1) ** -0.5)
    return nn.Dense(1, kernel_init=init, dtype=jnp.float32, name=name)


def score_head(config: TransformerConfig) -> "ScoreHead":
    """The score head of a network."""
    return ScoreHead(
        vocab_size=config.vocab_size,
        pooling=config.score_pooling,
        bag=config.score_bag,
        characters=config.score_characters,
        bag_buckets=config.score_bag_buckets,
        bag_power=config.score_bag_power,
    )


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


READS_LAST = ("last", "none")  # poolings that ask for no other column


def pooled(hidden: jax.Array, mask: jax.Array, pooling: str) -> jax.Array:
    """Pooled hidden states of a text, the input of the score head.

    Args:
      hidden: `[B, T, D]`, in which padding repeats the last real token.
      mask: `[B, T]` bool, true on real tokens.
      pooling: "mean" over real tokens, "both" that and the last one, or else the last one.

    Returns:
      `[B, D]` float32, `[B, 2 D]` for both.
    """
    last = hidden[:, -1].astype(jnp.float32)
    if pooling in READS_LAST:
        return last
    total = jnp.where(mask[..., None], hidden.astype(jnp.float32), 0.0).sum(axis=1)
    mean = total / jnp.maximum(mask.sum(axis=1), 1).astype(jnp.float32)[:, None]
    return mean if pooling == "mean" else jnp.concatenate([mean, last], axis=1)


class ScoreHead(nn.Module):
    """One number a text, from its pooled hidden states, a bag of features, or both.

      score = w . pooled + b  [+ sum_f rarity_f weight_f / (number of features)^power]

    The features f are the text's tokens, pairs of tokens and, with `characters`, runs of 4 to 6
    characters across token borders (pairs and runs share weights by hashing). Rarity says how rare
    a feature is; it is 1 unless somebody puts inverse document frequencies there, and like the
    spelling of the tokens it is never trained.
    """

    vocab_size: int
    pooling: str
    bag: bool
    characters: int
    bag_buckets: int
    bag_power: float

    @nn.compact
    def __call__(self, text, tokens, mask):
        """`text` from `pooled`, `tokens [B, T]` (padding filled), `mask` -> `[B]`; 0 if
        empty.
        """
        if self.pooling == "none":
            scores = jnp.broadcast_to(self.param("bias", nn.initializers.zeros, ()), len(mask))
        else:
            scores = readout(text.shape[-1], "readout")(text)[:, 0]
        if self.bag:
            scores += self._bag(tokens, mask)
        return jnp.where(mask.any(axis=1), scores, 0.0)

    def _bag(self, tokens, mask):
        sizes = {"tokens": self.vocab_size, "pairs": self.bag_buckets, "runs": self.bag_buckets}
        features = token_features(tokens, mask, self.bag_buckets)
        if self.characters:
            zeros, shape = nn.initializers.zeros, (self.vocab_size, self.characters)
            spelling = jax.lax.stop_gradient(self.param("spelling", zeros, shape))
            features |= character_features(
                spelling.astype(jnp.uint32)[tokens], mask, self.bag_buckets
            )
        total, count = 0.0, 0.0
        for name, (buckets, real) in features.items():
            weights = self._weights(name, sizes[name])
            total += jnp.where(real, weights[buckets], 0.0).sum(axis=1)
            count += real.sum(axis=1)
        return total / jnp.maximum(count, 1) ** self.bag_power

    def _weights(self, name, size):
        rarity = self.param(f"{name}_rarity", nn.initializers.ones, (size,))
        return self.param(name, nn.initializers.zeros, (size,)) * jax.lax.stop_gradient(rarity)


def token_features(tokens: jax.Array, mask: jax.Array, buckets: int) -> dict:
    """Tokens and pairs of neighbours: `{name: (feature ids [B, T], which are real [B, T])}`."""
    begun = shift_right(jnp.cumsum(mask, axis=1, dtype=jnp.int32)) > 0
    pairs = bigram_bucket(shift_right(tokens), tokens, buckets)
    return {"tokens": (tokens, mask), "pairs": (pairs, mask & begun)}


def character_features(codes: jax.Array, mask: jax.Array, buckets: int) -> dict:
    """Runs of 4, 5 and 6 characters of the text that the tokens spell, across their borders.

    Args:
      codes: `[B, T, C]` uint32 characters of each token, 0 after its last.
      mask: `[B, T]` bool, true on real tokens.
      buckets: ids are hashed into so many.
    """
    codes = jnp.where(mask[..., None], codes, 0).reshape(len(codes), -1)
    place = jnp.cumsum(codes > 0, axis=1) - 1
    rows = jnp.arange(len(codes))[:, None]
    place = jnp.where(codes > 0, place, codes.shape[1])  # out of bounds: dropped
    text = jnp.zeros_like(codes).at[rows, place].set(codes, mode="drop")
    runs, hashed, real = [], text, text > 0
    for length in range(2, 7):
        hashed = mixed(shift_right(hashed), text)
        real = shift_right(real) & (text > 0)
        if length >= 4:
            runs.append(((hashed % jnp.uint32(buckets)).astype(jnp.int32), real))
    return {"runs": tuple(jnp.concatenate(parts, axis=1) for parts in zip(*runs, strict=True))}


def mixed(before: jax.Array, code: jax.Array) -> jax.Array:
    """A hash of what came before and the next code: multiply and fold, in 32-bit arithmetic.

    Source: Knuth, The Art of Computer Programming 3, section 6.4 (Fibonacci hashing).
    """
    pair = before.astype(jnp.uint32) * jnp.uint32(2654435769) + code.astype(jnp.uint32)
    folded = (pair ^ (pair >> 16)) * jnp.uint32(2246822519)
    return folded ^ (folded >> 13)


def bigram_bucket(previous: jax.Array, tokens: jax.Array, buckets: int) -> jax.Array:
    """Which of `buckets` weights a pair of ids shares, `int32`."""
    return (mixed(previous, tokens) % jnp.uint32(buckets)).astype(jnp.int32)
