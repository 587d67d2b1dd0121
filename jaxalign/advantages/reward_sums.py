"""Weighted sums of the scores of several reward functions, on the host and in float64."""

import numpy as np

from jaxalign.numerics.precision import rounding


def reward_sums(scores: np.ndarray, weights: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Weighted sums of the scores of several reward functions, comparable within each group.

      s_i = sum_f w_f s_if  over the functions of i's group: those that scored any response of it

    A response that lacks the score of a function of its group has no sum, or lacking a score could
    win: (format -1, truth 1) against (format unknown, truth 1). A function that scored none of a
    group is left out for all of it, so that each of several tasks can have functions of its own.
    Functions of weight 0 are not counted.

    Sums that differ by the rounding of their terms alone become the same number, so that rewards
    (1, 1, 0) and (0, 0, 1) with weights 0.1, 0.6, 0.7 are equal, and so are 100 - 100 and 0.

    Args:
      scores: `[B, F]`, reward units; NaN where a function returned none.
      weights: `[F]`, finite.
      groups: `[B]` integers, the same for responses that are compared (to the same prompt).

    Returns:
      `[B]` float64, reward units; NaN where there is no score.
    """
    used = np.asarray(weights) != 0
    scores, weights = np.asarray(scores, np.float64)[:, used], np.asarray(weights, float)[used]
    scored = ~np.isnan(scores)
    _, group = np.unique(groups, return_inverse=True)
    wanted = np.zeros((len(groups), len(weights)), bool)
    np.logical_or.at(wanted, group, scored)
    wanted = wanted[group]
    terms = np.where(scored, scores, 0) * weights
    sums = _united(terms.sum(axis=1), len(weights) * np.abs(terms).sum(axis=1))
    return np.where(wanted.any(axis=1) & (scored | ~wanted).all(axis=1), sums, np.nan)


def _united(sums: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Sums with ties restored: the smallest one for all that are equal but for rounding."""
    order = np.argsort(sums, kind="stable")
    ordered, scale = sums[order], scale[order]
    apart = np.diff(ordered) > rounding(np.maximum(scale[1:], scale[:-1]))
    first = np.concatenate([[True], apart])[: len(sums)]
    united = np.empty_like(sums)
    united[order] = ordered[first][np.cumsum(first) - 1]
    return united
