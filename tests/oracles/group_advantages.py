"""Advantages of responses to the same prompt, one group and one response at a time."""

import math

import numpy as np


def _by_group(fn, scores, mask, *others) -> np.ndarray:
    """`fn(present scores, ...)` for the unmasked responses of every group; 0 elsewhere."""
    advantages = np.zeros(np.shape(mask))
    for p, row in enumerate(mask):
        here = [g for g, real in enumerate(row) if real]
        columns = [[float(x[p][g]) for g in here] for x in (scores, *others)]
        advantages[p, here] = fn(*columns)
    return advantages


def mean(x) -> float:
    return math.fsum(x) / len(x)


def deviation(x) -> float:
    """Unbiased variance, rooted; 0 for one number."""
    if len(x) < 2:
        return 0.0
    centre = mean(x)
    return math.sqrt(math.fsum((v - centre) ** 2 for v in x) / (len(x) - 1))


def _centred(x):
    return [v - mean(x) for v in x]


def _standardised(x):
    return [(v - mean(x)) / deviation(x) if deviation(x) else 0.0 for v in x]


def centred_advantages(scores, mask):
    """Liu et al. 2025 (Dr. GRPO)."""
    return _by_group(_centred, scores, mask)


def grpo_advantages(scores, mask):
    """Shao et al. 2024, sec. 4.1.2."""
    return _by_group(_standardised, scores, mask)


def batch_scaled_advantages(scores, mask):
    """The mean of the group, the deviation of everything."""
    spread = deviation([float(v) for v in np.asarray(scores)[np.asarray(mask)]])
    centred = centred_advantages(scores, mask)
    return centred / spread if spread else centred


def leave_one_out_advantages(scores, mask):
    """Ahmadian et al. 2024: the baseline is the mean of the others."""

    def group(x):
        others = [x[:i] + x[i + 1 :] for i in range(len(x))]
        return [v - mean(rest) if rest else 0.0 for v, rest in zip(x, others, strict=True)]

    return _by_group(group, scores, mask)


def best_of_group_advantages(scores, mask):
    """Tang et al. 2025: what the largest score would be without this response."""

    def group(x):
        others = [x[:i] + x[i + 1 :] for i in range(len(x))]
        return [max(x) - max(rest) if rest else 0.0 for rest in others]

    return _by_group(group, scores, mask)


def length_weighted_advantages(scores, lengths, mask):
    """Hao et al. 2025 (OPO)."""

    def group(x, weights):
        if not x:
            return []
        weights = weights if any(weights) else [1.0] * len(x)
        products = (w * v for w, v in zip(weights, x, strict=True))
        baseline = math.fsum(products) / math.fsum(weights)
        return [v - baseline for v in x]

    return _by_group(group, scores, mask, lengths)


def weighted_scores(scores, weights):
    """The sum over the functions that gave a score, and whether any did."""
    total, given = np.zeros(np.shape(scores)[1:]), np.zeros(np.shape(scores)[1:], bool)
    for at in np.ndindex(total.shape):
        kept = [(w, s[at]) for w, s in zip(weights, scores, strict=True) if not math.isnan(s[at])]
        total[at], given[at] = math.fsum(w * s for w, s in kept), bool(kept)
    return total, given


def decoupled_advantages(scores, weights):
    """Liu et al. 2026 (GDPO): standardise each reward by group, add, standardise by batch."""
    given = ~np.isnan(scores)
    each = [grpo_advantages(s, m) for s, m in zip(scores, given, strict=True)]
    total, mask = weighted_scores(np.where(given, each, np.nan), weights)
    result = np.zeros(total.shape)
    result[mask] = _standardised([float(v) for v in total[mask]])
    return result
