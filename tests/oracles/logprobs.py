"""Log-probabilities of an autoregressive model, one token at a time, from the chain rule."""

import math

import numpy as np


def log_softmax(logits) -> list[float]:
    top = max(logits)
    normaliser = math.log(math.fsum(math.exp(z - top) for z in logits))
    return [z - top - normaliser for z in logits]


def token_logps(logits, tokens, temperature: float = 1.0) -> np.ndarray:
    """log pi(tokens[t] | tokens[<t]); the logits at t - 1 have seen tokens[<t]."""
    logits = np.asarray(logits, np.float64)
    result = np.zeros(np.shape(tokens))
    for b, row in enumerate(tokens):
        for t in range(1, len(row)):
            scaled = [z / temperature for z in logits[b, t - 1]]
            result[b, t] = log_softmax(scaled)[row[t]]
    return result


def entropy(logits) -> float:
    log_p = log_softmax(logits)
    return math.fsum(-math.exp(lp) * lp for lp in log_p if lp > -math.inf)


def token_entropy(logits, temperature: float = 1.0) -> np.ndarray:
    logits = np.asarray(logits, np.float64)
    result = np.zeros(logits.shape[:2])
    for b, t in np.ndindex(*logits.shape[:2]):
        if t:
            result[b, t] = entropy([z / temperature for z in logits[b, t - 1]])
    return result


def sequence_logps(token_logps, mask) -> np.ndarray:
    rows = zip(token_logps, mask, strict=True)
    return np.array([math.fsum(v for v, m in zip(*row, strict=True) if m) for row in rows])
