"""Win rates of a method's samples against a baseline's on the same prompts, by a scorer."""

import numpy as np

from jaxalign.errors import UserError
from jaxalign.evaluation.bootstrap import Estimate, mean_estimate
from jaxalign.numerics.precision import rounding


def wins(scores: np.ndarray, baseline_scores: np.ndarray) -> np.ndarray:
    """Share of a prompt's sample pairs won by the method, a tie being half a win.

      w_i = mean over j, k of 1[s_ij > b_ik] + 1[s_ij = b_ik] / 2

    Scores that differ by float32's rounding alone are a tie: the same text, scored in two batches,
    beats nobody.

    Args:
      scores: `[N]` or `[N, S]`, the method's scores, S samples for each of N prompts.
      baseline_scores: `[N]` or `[N, S']`, the baseline's on the same prompts in the same order.

    Returns:
      `[N]` in [0, 1]. Two equal sets of samples give exactly 0.5 on average over (j, k).

    >>> wins(np.array([1.0, 2.0, 3.0]), np.array([0.0, 2.0, 4.0]))
    array([1. , 0.5, 0. ])
    """
    scores, baseline = _by_prompt(scores), _by_prompt(baseline_scores)
    if len(scores) != len(baseline):
        raise UserError(
            f"win rate needs the same prompts: {len(scores)} scored for the method, "
            f"{len(baseline)} for the baseline"
        )
    differences = scores[:, :, None] - baseline[:, None, :]
    largest = np.maximum(np.abs(scores)[:, :, None], np.abs(baseline)[:, None, :])
    apart = np.abs(differences) > rounding(largest.astype(np.float32))
    return (0.5 + 0.5 * apart * np.sign(differences)).mean(axis=(1, 2))


def win_rate(
    scores: np.ndarray, baseline_scores: np.ndarray, *, repeats: int = 1000, seed: int = 0
) -> Estimate:
    """Mean of `wins` with a 95% bootstrap interval over prompts.

    The samples of one prompt stay together: more samples per prompt sharpen w_i but are no new
    prompts. A control row (baseline against fresh baseline samples) is a method like any other
    and shows what "no difference" looks like under this judge.

    >>> win_rate(np.array([1.0, 2.0]), np.array([1.0, 2.0]))
    Estimate(value=0.5, low=0.5, high=0.5)
    """
    return mean_estimate(wins(scores, baseline_scores), repeats=repeats, seed=seed)


def _by_prompt(scores: np.ndarray) -> np.ndarray:
    """`[N]` or `[N, S]` -> `[N, S]` float64, every number finite."""
    scores = np.asarray(scores, np.float64)
    if scores.ndim not in (1, 2):
        raise UserError(f"scores have shape {scores.shape}; wanted [prompts] or [prompts, samples]")
    if not np.isfinite(scores).all():
        raise UserError("a score is NaN or infinite; a win rate needs a score for every sample")
    return scores.reshape(len(scores), -1) if scores.size else np.zeros((len(scores), 1))
