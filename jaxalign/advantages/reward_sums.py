"""One score for each response from several judges, on the host and in float64."""

import numpy as np

from jaxalign.numerics.precision import rounding


def reward_sums(scores: np.ndarray, weights: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Weighted sums of what several judges say, of which those of a group can be compared.

      s_i = sum_f w_f s_if  over the judges of i's group: those that judged any response of it

    A response that a judge of its group did not judge has no score, or not being judged could win:
    (format -1, truth 1) against (format unknown, truth 1). A judge that judged none of a group is
    left out for all of it, so that each of several tasks can have judges of its own. Judges that
    weigh 0 are not counted.

    Sums that differ by the rounding of their terms alone become the same number, so that rewards
    (1, 1, 0) and (0, 0, 1) with weights 0.1, 0.6, 0.7 are equal, and so are 100 - 100 and 0.

    Args:
      scores: `[B, F]`, reward units; NaN where a judge gave none.
      weights: `[F]`, finite.
      groups: `[B]` integers, the same for responses that are compared (to the same prompt).

    Returns:
      `[B]` float64, reward units; NaN where there is no score.
    """
    used = np.asarray(weights) != 0
    scores, weights = np.asarray(scores, np.float64)[:, used], np.asarray(weights, float)[used]
    judged = ~np.isnan(scores)
    _, group = np.unique(groups, return_inverse=True)
    wanted = np.zeros((len(groups), len(weights)), bool)
    np.logical_or.at(wanted, group, judged)
    wanted = wanted[group]
    terms = np.where(judged, scores, 0) * weights
    sums = _united(terms.sum(axis=1), len(weights) * np.abs(terms).sum(axis=1))
    return np.where(wanted.any(axis=1) & (judged | ~wanted).all(axis=1), sums, np.nan)


def _united(sums: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The sums, the smallest one of them for those that are equal but for rounding."""
    order = np.argsort(sums, kind="stable")
    ordered, scale = sums[order], scale[order]
    apart = np.diff(ordered) > rounding(np.maximum(scale[1:], scale[:-1]))
    first = np.concatenate([[True], apart])[: len(sums)]
    united = np.empty_like(sums)
    united[order] = ordered[first][np.cumsum(first) - 1]
    return united
