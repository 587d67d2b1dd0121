"""Losses on tokens of whole responses, a response at a time: each from its paper's equation."""

import math

import numpy as np

from tests.oracles import ppo
from tests.oracles.precision import saturating_exp


def steps(row) -> list[int]:
    return [t for t, real in enumerate(row) if real]


def mean_log_ratio(logps, behaviour, row) -> float:
    """Zheng et al. 2025 (GSPO), Eq. 7: the logarithm of the length-normalised ratio."""
    at = steps(row)
    return math.fsum(logps[t] - behaviour[t] for t in at) / len(at) if at else 0.0


def each_token(advantages, logps):
    return np.array([[a] * np.shape(logps)[1] for a in advantages])


def sequence_log_ratios(logps, behaviour, mask):
    triples = zip(logps, behaviour, mask, strict=True)
    return np.array([[mean_log_ratio(*triple)] * len(triple[0]) for triple in triples])


def grpo(logps, behaviour, advantages, kl, *, clip_range, kl_coef, dual_clip=None):
    """Shao et al. 2024, Eq. 3, inside the sums."""
    low, high = np.broadcast_to(clip_range, 2)
    found = np.zeros(np.shape(logps))
    for i, t in np.ndindex(*found.shape):
        step = (logps[i][t], behaviour[i][t], advantages[i], low, high, dual_clip)
        found[i, t] = ppo.policy_loss(*step) + kl_coef * kl[i][t]
    return found


def rloo(logps, behaviour, mask, advantages, *, clip_range):
    """Ahmadian et al. 2024: the whole response is one action."""
    low, high = np.broadcast_to(clip_range, 2)

    def total(x, row):
        return math.fsum(x[t] for t in steps(row))

    rows = zip(logps, behaviour, mask, advantages, strict=True)
    return np.array(
        [ppo.policy_loss(total(x, m), total(b, m), a, low, high) for x, b, m, a in rows]
    )


def cispo(logp, behaviour, advantage, *, highest, lowest=0.0) -> float:
    """MiniMax 2025, Eqs. 4 and 5."""
    return -min(max(saturating_exp(logp - behaviour), lowest), highest) * advantage * logp


def sapo(logp, behaviour, advantage, *, positive_temperature=1.0, negative_temperature=1.05):
    """Gao et al. 2025, Eq. 6: f = 4 / tau sigmoid(tau (r - 1))."""
    tau = positive_temperature if advantage > 0 else negative_temperature
    x = tau * (saturating_exp(logp - behaviour) - 1)
    gate = 1 / (1 + math.exp(-x)) if x > -700 else 0.0
    return -advantage * gate * 4 / tau


def gmpo(logps, behaviour, mask, advantages, *, clip_range):
    """Zhao et al. 2025: product of the one-sidedly clipped ratios to the power 1/|y|."""
    low, high = np.broadcast_to(clip_range, 2)
    found = []
    for x, b, row, a in zip(logps, behaviour, mask, advantages, strict=True):
        logs = [x[t] - b[t] for t in steps(row)]
        bounded = [max(v, -low) if a < 0 else min(v, high) for v in logs]
        found.append(-a * saturating_exp(math.fsum(bounded) / max(len(logs), 1)))
    return np.array(found)


def vespo(logps, behaviour, mask, advantages, *, positive=(2.0, 3.0), negative=(3.0, 2.0)):
    """w^k exp(lambda (1 - w)) of the ratio w of the whole response."""
    found = []
    for x, b, row, a in zip(logps, behaviour, mask, advantages, strict=True):
        k, rate = positive if a >= 0 else negative
        log_w = math.fsum(x[t] - b[t] for t in steps(row))
        found.append(saturating_exp(k * log_w + rate * (1 - saturating_exp(log_w))))
    return np.array(found)


def on_policy_rows(logps, behaviour, mask, advantages, *, threshold):
    rows = zip(logps, behaviour, mask, advantages, strict=True)
    return np.array([a >= 0 or -mean_log_ratio(x, b, m) <= threshold for x, b, m, a in rows])


def top_entropy_mask(entropies, mask, *, share):
    """Linear interpolation between the order statistics around rank (n - 1)(1 - share)."""
    kept = sorted(float(h) for h, m in zip(np.ravel(entropies), np.ravel(mask), strict=True) if m)
    place = (len(kept) - 1) * (1 - share)
    below = math.floor(place)
    after = kept[min(below + 1, len(kept) - 1)]
    threshold = kept[below] + (place - below) * (after - kept[below])
    return np.array(
        [
            [bool(m) and h >= threshold for h, m in zip(*row, strict=True)]
            for row in zip(entropies, mask, strict=True)
        ]
    )
