"""How token losses become one number: weights of the tokens and what their sum is divided by."""

import numpy as np


def token_mean(mask):
    """Yu et al. 2025, Eq. 8: all tokens of the batch are one set."""
    return np.asarray(mask, float), float(np.count_nonzero(mask))


def _rows(mask, rows):
    return [any(row) for row in mask] if rows is None else rows


def sequence_mean(mask, rows=None):
    """Shao et al. 2024, Eq. 3: 1/|y| inside a mean over responses."""
    weights = np.zeros(np.shape(mask))
    for i, row in enumerate(mask):
        for t, real in enumerate(row):
            weights[i, t] = 1 / sum(map(int, row)) if real else 0.0
    return weights, float(sum(_rows(mask, rows)))


def sequence_sum(mask, rows=None):
    return np.asarray(mask, float), float(sum(_rows(mask, rows)))


def constant_length(mask, rows=None, *, length):
    """Liu et al. 2025: a constant in place of |y|."""
    return np.asarray(mask, float), float(sum(_rows(mask, rows))) * length


def without_truncated(mask, ended):
    return np.array([[real and end for real in row] for row, end in zip(mask, ended, strict=True)])
