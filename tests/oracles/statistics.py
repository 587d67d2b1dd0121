"""Masked statistics by plain loops and exact summation."""

import math

import numpy as np


def masked_values(x, mask) -> list[float]:
    return [float(v) for v, m in zip(np.ravel(x), np.ravel(mask), strict=True) if m]


def masked_mean(x, mask) -> float:
    kept = masked_values(x, mask)
    return math.fsum(kept) / len(kept) if kept else 0.0


def masked_variance(x, mask, ddof: int) -> float:
    kept = masked_values(x, mask)
    if len(kept) <= ddof:
        return 0.0
    mean = math.fsum(kept) / len(kept)
    return math.fsum((v - mean) ** 2 for v in kept) / (len(kept) - ddof)


def whiten(x, mask, shift_mean: bool) -> np.ndarray:
    mean, deviation = masked_mean(x, mask), math.sqrt(masked_variance(x, mask, 0))
    result = np.zeros(np.shape(x))
    for at in np.ndindex(*np.shape(x)):
        if mask[at]:
            centred = x[at] - mean
            result[at] = (centred / deviation if deviation else centred) + (not shift_mean) * mean
    return result
