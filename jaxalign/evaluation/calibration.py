"""Calibration of a reward model: its probabilities against shares of human preferences."""

import numpy as np

from jaxalign.errors import UserError


def preference_calibration(
    differences: np.ndarray, preferred: np.ndarray, *, bins: int = 8
) -> list[dict[str, float]]:
    """Calibration curve: share of people who agree with a reward model, by its own probability.

      p = 1 / (1 + exp(-|d|)), the Bradley-Terry probability of the text with the higher score

    A pair has no first text, so every pair is turned to d >= 0 first. Bins hold equally many pairs.

    Args:
      differences: `[N]` score of one text minus score of the other.
      preferred: `[N]` in [0, 1], 1 where people prefer the one, a share where several judged.
      bins: number of bins; fewer where there are fewer pairs.

    Returns:
      One row a bin: `predicted` (mean p), `observed` (mean agreement), `observed_low` and
      `observed_high` (two standard errors on either side, as if pairs were independent), `count`.

    >>> rows = preference_calibration(np.array([2.0, -2.0]), np.array([1.0, 0.0]), bins=1)
    >>> round(rows[0]["predicted"], 3), rows[0]["observed"], rows[0]["count"]
    (0.881, 1.0, 2)
    """
    differences, preferred = np.asarray(differences, float), np.asarray(preferred, float)
    if differences.shape != preferred.shape or differences.ndim != 1:
        raise UserError(f"{differences.shape} differences for {preferred.shape} preferences")
    agreed = 0.5 + np.sign(differences) * (preferred - 0.5)
    sure = 1 / (1 + np.exp(-np.abs(differences)))
    order = np.argsort(sure, kind="stable")
    parts = np.array_split(order, min(bins, max(len(order), 1)))
    return [_bin(sure[part], agreed[part]) for part in parts if len(part)]


def _bin(sure: np.ndarray, agreed: np.ndarray) -> dict[str, float]:
    """One bin of the curve: its size, mean probability and share of agreement."""
    observed = float(agreed.mean())
    margin = 2 * float(agreed.std()) / np.sqrt(len(agreed))
    return {
        "predicted": float(sure.mean()),
        "observed": observed,
        "observed_low": max(observed - margin, 0.0),
        "observed_high": min(observed + margin, 1.0),
        "count": len(agreed),
    }
