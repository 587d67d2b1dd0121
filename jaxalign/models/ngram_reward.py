"""An n-gram reward model: a weight for every token, bigram and character n-gram of a text.

  score = b + (sum_f idf_f w_f) / n^power        f: the n features of the text

The weights w are learned; which features a text has, how rare they are among the texts (idf) and
how tokens are spelled is fixed before, and is not among the trained parameters. Instead of the bias
b the score may begin with a linear readout of a transformer's hidden states.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxalign.logprobs import shift_right
from jaxalign.models.architecture import check_names
from jaxalign.models.heads import readout
from jaxalign.models.ranges import check_ranges
from jaxalign.system.files import as_type

FEATURES = "ngram_features"  # the entry of a model's parameters that is never trained
NGRAMS = ("unigrams", "bigrams", "character_ngrams")
CHARACTERS = (4, 5, 6)  # lengths of the character n-grams
Present = dict[str, tuple[jax.Array, jax.Array]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class NgramConfig:
    """What an n-gram reward model reads.

    hidden_states: whether the score begins with a readout of the trunk instead of a bias.
    token_characters: longest token whose characters the character n-grams read; 0: there are none.
    buckets: number of weights that the bigrams (and the character n-grams) share by hashing.
    power: the sum is divided by the number of features to this power (0 sums, 1 averages).
    """

    hidden_states: bool = True
    token_characters: int = 0
    buckets: int = 262_144
    power: float = 0.5

    def __post_init__(self):
        check_ranges(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any], where: str) -> "NgramConfig":
        """The configuration of `dataclasses.asdict` that went through JSON.

        Raises:
          UserError: names a field that is unknown, of another type or out of its range.
        """
        check_names(fields, cls, where)
        return as_type(fields, cls, where)

    def sizes(self, vocab_size: int) -> dict[str, int]:
        """The number of weights of each kind of n-gram."""
        kinds = NGRAMS if self.token_characters else NGRAMS[:2]
        return {kind: vocab_size if kind == "unigrams" else self.buckets for kind in kinds}


class NgramFeatures(nn.Module):
    """What is known of the n-grams before training: idf of each, and how tokens are spelled.

    idf is 1 and nothing is spelled until somebody puts something else there.
    """

    config: NgramConfig
    vocab_size: int

    @nn.compact
    def __call__(self) -> dict[str, jax.Array]:
        """`{unigrams_idf [V], bigrams_idf [buckets], ..., spelling [V, C]}`."""
        sizes = self.config.sizes(self.vocab_size)
        found = {f"{n}_idf": self.param(f"{n}_idf", nn.initializers.ones, (sizes[n],))
                 for n in sizes}  # fmt: skip
        if self.config.token_characters:
            shape = (self.vocab_size, self.config.token_characters)
            found["spelling"] = self.param("spelling", nn.initializers.zeros, shape)
        return jax.tree.map(jax.lax.stop_gradient, found)


class NgramScoreHead(nn.Module):
    """One number a text, from its n-grams and, if the configuration says so, its hidden states."""

    config: NgramConfig
    vocab_size: int

    @nn.compact
    def __call__(
        self, text: jax.Array, tokens: jax.Array, mask: jax.Array, known: dict[str, jax.Array]
    ) -> jax.Array:
        """`[B]` float32 scores, 0 of an empty text.

        Args:
          text: `[B, D]` from `pooled`.
          tokens: `[B, T]` ids, something valid on padding.
          mask: `[B, T]` bool, true on real tokens.
          known: of `NgramFeatures`.
        """
        if self.config.hidden_states:
            scores = readout(text.shape[-1], "readout")(text)[:, 0]
        else:
            scores = jnp.broadcast_to(self.param("bias", nn.initializers.zeros, ()), len(mask))
        sizes = self.config.sizes(self.vocab_size)
        total, count = 0.0, 0.0
        for name, (ids, real) in ngrams(self.config, tokens, mask, known).items():
            weights = self.param(name, nn.initializers.zeros, (sizes[name],))
            weights = weights * known[f"{name}_idf"]
            total += jnp.where(real, weights[ids], 0.0).sum(axis=1)
            count += real.sum(axis=1)
        scores += total / jnp.maximum(count, 1) ** self.config.power
        return jnp.where(mask.any(axis=1), scores, 0.0)


def ngrams(
    config: NgramConfig, tokens: jax.Array, mask: jax.Array, known: dict[str, jax.Array]
) -> Present:
    """The n-grams of texts by kind: ids `[B, N]`, and which of them are there `[B, N]`.

    Args:
      config: which kinds, and how many ids they are hashed into.
      tokens, mask: `[B, T]` ids, and true on real tokens.
      known: `spelling` is read of it, where there are character n-grams.
    """
    found = token_ngrams(tokens, mask, config.buckets)
    if not config.token_characters:
        return found
    codes = known["spelling"].astype(jnp.uint32)[tokens]
    return found | character_ngrams(codes, mask, config.buckets)


def token_ngrams(tokens: jax.Array, mask: jax.Array, buckets: int) -> Present:
    """Tokens and bigrams of texts: `{name: (ids [B, T], which are there [B, T])}`."""
    begun = shift_right(jnp.cumsum(mask, axis=1, dtype=jnp.int32)) > 0
    bigrams = bigram_bucket(shift_right(tokens), tokens, buckets)
    return {"unigrams": (tokens, mask), "bigrams": (bigrams, mask & begun)}


def character_ngrams(codes: jax.Array, mask: jax.Array, buckets: int) -> Present:
    """The 4, 5 and 6 characters in a row of the text that the tokens spell, across their borders.

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
    parts, hashed, real = [], text, text > 0
    for length in range(2, CHARACTERS[-1] + 1):
        hashed = mixed(shift_right(hashed), text)
        real = shift_right(real) & (text > 0)
        if length in CHARACTERS:
            parts.append(((hashed % jnp.uint32(buckets)).astype(jnp.int32), real))
    ids, there = (jnp.concatenate(part, axis=1) for part in zip(*parts, strict=True))
    return {"character_ngrams": (ids, there)}


def mixed(before: jax.Array, code: jax.Array) -> jax.Array:
    """A hash of what came before and the next code: multiply and fold, in 32-bit arithmetic.

    Source: Knuth, The Art of Computer Programming 3, section 6.4 (Fibonacci hashing).
    """
    pair = before.astype(jnp.uint32) * jnp.uint32(2654435769) + code.astype(jnp.uint32)
    folded = (pair ^ (pair >> 16)) * jnp.uint32(2246822519)
    return folded ^ (folded >> 13)


def bigram_bucket(previous: jax.Array, tokens: jax.Array, buckets: int) -> jax.Array:
    """The weight that a bigram of ids reads, `int32` below `buckets`."""
    return (mixed(previous, tokens) % jnp.uint32(buckets)).astype(jnp.int32)


def inverse_document_frequency(counts: np.ndarray, texts: int) -> np.ndarray:
    """Smoothed inverse document frequency of a feature: how rare it is among texts.

      idf_f = log((1 + N) / (1 + number of texts with f)) + 1

    Args:
      counts: `[F]` how many of the texts have each feature.
      texts: N.

    Returns:
      `[F]` float32, 1 for a feature that every text has.

    Source: Sparck Jones 1972, https://doi.org/10.1108/eb026526, smoothed as in scikit-learn.

    >>> print(inverse_document_frequency(np.array([3.0, 1.0, 0.0]), 3).round(3))
    [1.    1.693 2.386]
    """
    return (np.log((1 + texts) / (1 + counts)) + 1).astype(np.float32)


def spelling(texts: Sequence[str], *, longest: int, vocab_size: int) -> np.ndarray:
    """Character codes of every token, `[V, longest]` float32, 0 after its last character.

    Args:
      texts: of the tokens by id; ids beyond them are spelled as nothing.
      longest: characters of a token that are read.
      vocab_size: V.

    >>> spelling(["ab", ""], longest=3, vocab_size=3).tolist()
    [[97.0, 98.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    codes = np.zeros((vocab_size, longest), np.float32)
    for number, text in enumerate(texts):
        part = text[:longest]
        codes[number, : len(part)] = [ord(character) for character in part]
    return codes
