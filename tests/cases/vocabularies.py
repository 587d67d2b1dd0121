"""Logits over a small vocabulary."""

from tests.cases import draws

WORDS = 3


def logits(rng, scale=1.5):
    return rng.normal(0.0, scale, (draws.ROWS, WORDS))
