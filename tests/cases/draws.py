"""Arguments as models give them: log-probabilities of responses, of tokens, masks."""

import numpy as np

from jaxalign import PairLengths, PairLogps
from tests.cases.case import ROWS

TOKENS = 5  # the time axis of every draw
SHAPE = (ROWS, TOKENS)


def sums(rng, scale=3.0, rows=ROWS) -> np.ndarray:
    """`[B]` nats, summed over a response."""
    return -rng.exponential(scale, rows)


def pair(rng, scale=3.0) -> PairLogps:
    return PairLogps(chosen=sums(rng, scale), rejected=sums(rng, scale))


def lengths(rng) -> PairLengths:
    """Tokens of both sides; among them one and none."""
    chosen, rejected = rng.integers(1, 9, (2, ROWS)).astype(float)
    chosen[:2], rejected[2:] = (0, 1), (1, 0)
    return PairLengths(chosen=chosen, rejected=rejected)


def tokens(rng, scale=1.0) -> np.ndarray:
    """`[B, T]` nats a token."""
    return -rng.exponential(scale, (ROWS, TOKENS))


def mask(rng) -> np.ndarray:
    """`[B, T]`: a row of all, one of nothing, one of one token, and holes elsewhere."""
    found = rng.random((ROWS, TOKENS)) < 0.6
    found[0], found[1], found[2] = True, False, np.arange(TOKENS) == 2
    found[3, :2] = True, False
    return found


def two_pairs(rng, scale=3.0) -> dict:
    """Policy and reference of every loss on pairs."""
    return {"policy": pair(rng, scale), "reference": pair(rng, scale)}


def extreme_pairs(rng) -> dict:
    """Sums of 1e4 nats in every combination of sides."""
    big = np.array([-1e4, -1.0, -1e4, 0.0])
    near = np.array([-1.0, -1e4, -1.5e4, -1e4])
    flat = np.zeros(ROWS)
    return {
        "policy": PairLogps(chosen=big, rejected=near),
        "reference": PairLogps(chosen=flat, rejected=flat - 2.0),
    }


def responses(rng, scale=1.0) -> dict:
    """Tokens of responses and where they are."""
    return {"token_logps": tokens(rng, scale), "mask": mask(rng)}
