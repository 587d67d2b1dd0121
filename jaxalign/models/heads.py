"""Heads that read numbers off the hidden states: values at every step, one score a text."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxalign.logprobs import shift_right


def readout(width: int, name: str) -> nn.Dense:
    """A float32 linear map to one number, initialised with std `1 / sqrt(width + 1)`.

    Source: Stiennon et al. 2020, https://arxiv.org/abs/2009.01325, appendix B.1 (reward head).
    """
    init = nn.initializers.normal((width + 1) ** -0.5)
    return nn.Dense(1, kernel_init=init, dtype=jnp.float32, name=name)


class ValueHead(nn.Module):
    """Value of the state in which each token was chosen: `values[t] = w . hidden[t - 1] + b`.

    It starts at 0 everywhere: a random baseline would only add noise to the first advantages.
    """

    @nn.compact
    def __call__(self, hidden, mask):
        """`hidden [B, T, D]`, `mask [B, T]` -> `[B, T]`, 0 where no real token comes before t."""
        head = nn.Dense(1, kernel_init=nn.initializers.zeros, dtype=jnp.float32, name="readout")
        values = shift_right(head(hidden)[..., 0])
        begun = shift_right(jnp.cumsum(mask, axis=1, dtype=jnp.int32)) > 0
        return jnp.where(begun, values, 0.0)


class ScoreHead(nn.Module):
    """One number a text, from its last or mean hidden state, a bag of tokens, or both.

      score = w . pooled + b  [+ sum_t (i[x_t] u[x_t] + j[h_t] z[h_t]) / (number of terms)^power]

    where h_t is the bucket of the pair (x_{t-1}, x_t). The factors i and j say how rare a token or
    pair is; they are 1 unless somebody puts inverse document frequencies there, and never trained.
    """

    vocab_size: int
    pooling: str
    bag: bool
    bag_buckets: int
    bag_power: float

    @nn.compact
    def __call__(self, hidden, tokens, mask):
        """`hidden [B, T, D]`, `tokens [B, T]` (padding filled), `mask` -> `[B]`; 0 if empty."""
        count = jnp.maximum(mask.sum(axis=1), 1).astype(jnp.float32)
        pooled = hidden[:, -1].astype(jnp.float32)  # the last column repeats the last real token
        if self.pooling == "mean":
            total = jnp.where(mask[..., None], hidden.astype(jnp.float32), 0.0).sum(axis=1)
            pooled = total / count[:, None]
        if self.pooling == "none":
            scores = jnp.broadcast_to(self.param("bias", nn.initializers.zeros, ()), count.shape)
        else:
            scores = readout(hidden.shape[-1], "readout")(pooled)[:, 0]
        if self.bag:
            terms = jnp.where(mask, self._bag(tokens, mask), 0.0)
            scores += terms.sum(axis=1) / (2 * count - 1) ** self.bag_power
        return jnp.where(mask.any(axis=1), scores, 0.0)

    def _bag(self, tokens, mask):
        begun = shift_right(jnp.cumsum(mask, axis=1, dtype=jnp.int32)) > 0
        buckets = bigram_bucket(shift_right(tokens), tokens, self.bag_buckets)
        singles = self._weights("unigram", self.vocab_size)[tokens]
        return singles + jnp.where(begun, self._weights("bigram", self.bag_buckets)[buckets], 0.0)

    def _weights(self, name, size):
        rarity = self.param(f"{name}_rarity", nn.initializers.ones, (size,))
        return self.param(f"{name}s", nn.initializers.zeros, (size,)) * jax.lax.stop_gradient(
            rarity
        )


def bigram_bucket(previous: jax.Array, tokens: jax.Array, buckets: int) -> jax.Array:
    """Which of `buckets` weights a pair of ids shares: a multiplicative hash in 32-bit arithmetic.

    Source: Knuth, The Art of Computer Programming 3, section 6.4 (Fibonacci hashing).
    """
    pair = previous.astype(jnp.uint32) * jnp.uint32(2654435769) + tokens.astype(jnp.uint32)
    mixed = (pair ^ (pair >> 16)) * jnp.uint32(2246822519)
    return ((mixed ^ (mixed >> 13)) % jnp.uint32(buckets)).astype(jnp.int32)
