"""Critic-free policy gradients as loops over tokens, from the papers: loss and slopes, float64.

Each method takes one response: log-probabilities under policy, behaviour and reference, advantages
and weights, a list each, and returns its summed loss and d loss / d log-probability of each token.
"""

import math


def clipped(log_ratio, advantage, low, high):
    """PPO Eq. 7: the loss and its derivative by the log-ratio."""
    ratio = math.exp(log_ratio)
    inside = ratio * advantage
    outside = min(max(ratio, 1 - low), 1 + high) * advantage
    return (-inside, -inside) if inside <= outside else (-outside, 0.0)


def tokens_clipped(low, high):
    def response(policy, behaviour, reference, advantages, weights):
        parts = [
            clipped(p - b, a, low, high)
            for p, b, a in zip(policy, behaviour, advantages, strict=True)
        ]
        return scaled(parts, weights)

    return response


def scaled(parts, weights):
    loss = sum(w * value for (value, _), w in zip(parts, weights, strict=True))
    return loss, [w * slope for (_, slope), w in zip(parts, weights, strict=True)]


def with_k3(response, coefficient):
    def charged(policy, behaviour, reference, advantages, weights):
        loss, slopes = response(policy, behaviour, reference, advantages, weights)
        for t, (p, q) in enumerate(zip(policy, reference, strict=True)):
            loss += coefficient * (math.exp(q - p) - (q - p) - 1)
            slopes[t] += coefficient * (1 - math.exp(q - p))
        return loss, slopes

    return charged


def sequence_clipped(low, high):
    """GSPO Eqs. 5 and 7: the same value at every token; each slope is felt by all tokens."""

    def response(policy, behaviour, reference, advantages, weights):
        n = len(policy)
        mean = sum(p - b for p, b in zip(policy, behaviour, strict=True)) / n
        value, slope = clipped(mean, advantages[0], low, high)
        return value * sum(weights), [slope * sum(weights) / n] * n

    return response


def token_of_sequence(low, high):
    """GSPO Eqs. 13 and 14: that value, but the slope of a token is its own."""

    def response(policy, behaviour, reference, advantages, weights):
        n = len(policy)
        mean = sum(p - b for p, b in zip(policy, behaviour, strict=True)) / n
        return scaled([clipped(mean, a, low, high) for a in advantages], weights)

    return response


def cispo(policy, behaviour, reference, advantages, weights):
    parts = []
    for p, b, a in zip(policy, behaviour, advantages, strict=True):
        weight = min(math.exp(p - b), 5.0)
        parts.append((-weight * a * p, -weight * a))
    return scaled(parts, weights)


def sapo(policy, behaviour, reference, advantages, weights):
    parts = []
    for p, b, a in zip(policy, behaviour, advantages, strict=True):
        tau, ratio = 1.0 if a > 0 else 1.05, math.exp(p - b)
        gate = 1 / (1 + math.exp(-tau * (ratio - 1)))
        parts.append((-a * 4 / tau * gate, -a * 4 * gate * (1 - gate) * ratio))
    return scaled(parts, weights)


def gmpo(policy, behaviour, reference, advantages, weights):
    """One loss a response, spread over its tokens: of n tokens n times the loss."""
    n, a = len(policy), advantages[0]
    ratios = [p - b for p, b in zip(policy, behaviour, strict=True)]
    free = [r > -0.4 if a < 0 else r < 0.4 for r in ratios]
    bounded = [max(r, -0.4) if a < 0 else min(r, 0.4) for r in ratios]
    value = -a * math.exp(sum(bounded) / n)
    return value * sum(weights), [value / n * sum(weights) * f for f in free]


def rloo(policy, behaviour, reference, advantages, weights):
    """One loss a response, spread over its tokens."""
    total = sum(p - b for p, b in zip(policy, behaviour, strict=True))
    value, slope = clipped(total, advantages[0], 0.2, 0.2)
    return value * sum(weights), [slope * sum(weights)] * len(policy)


def vespo(policy, behaviour, reference, advantages, weights):
    k, rate = (2.0, 3.0) if advantages[0] >= 0 else (3.0, 2.0)
    w = math.exp(sum(p - b for p, b in zip(policy, behaviour, strict=True)))
    phi = w**k * math.exp(rate * (1 - w))
    parts = [(-phi * a * p, -phi * a) for p, a in zip(policy, advantages, strict=True)]
    return scaled(parts, weights)


def reinforce(policy, behaviour, reference, advantages, weights):
    return scaled([(-a * p, -a) for p, a in zip(policy, advantages, strict=True)], weights)


METHODS = {  # name: loss of one response, aggregation
    "grpo": (with_k3(tokens_clipped(0.2, 0.2), 0.04), "sequence_mean"),
    "dr_grpo": (tokens_clipped(0.2, 0.2), "constant_length"),
    "dapo": (tokens_clipped(0.2, 0.28), "token_mean"),
    "bnpo": (tokens_clipped(0.2, 0.2), "token_mean"),
    "gspo": (sequence_clipped(3e-4, 4e-4), "sequence_mean"),
    "gspo_token": (token_of_sequence(3e-4, 4e-4), "sequence_mean"),
    "cispo": (cispo, "token_mean"),
    "sapo": (sapo, "sequence_mean"),
    "luspo": (sequence_clipped(2e-3, 2.5e-3), "sequence_sum"),
    "gmpo": (gmpo, "sequence_mean"),
    "vespo": (vespo, "token_mean"),
    "rloo": (rloo, "sequence_mean"),
    "reinforce": (reinforce, "sequence_sum"),
    "reinforce_plus_plus": (tokens_clipped(0.2, 0.2), "token_mean"),
}


def aggregated(method, rows, *, length):
    """Sum of losses, divisor, and slopes of the sum, of responses given as lists (may be empty), by
    a method as in `METHODS`.
    """
    response, aggregation = method
    total, slopes, tokens, responses = 0.0, [], 0, 0
    for row in rows:
        n = len(row[0])
        loss, slope = response(*row) if n else (0.0, [])
        share = 1 / n if n and aggregation == "sequence_mean" else 1.0
        total += share * loss
        slopes.append([share * s for s in slope])
        tokens += n
        responses += n > 0
    divisor = {"token_mean": tokens, "constant_length": responses * length}
    return total, divisor.get(aggregation, responses), slopes
