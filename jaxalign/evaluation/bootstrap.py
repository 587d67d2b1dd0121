"""Percentile bootstrap, all replicates at once: a replicate is a row of resampling counts."""

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxalign.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """Number with the ends of its 95% interval (NaN where there is nothing to estimate)."""

    value: float
    low: float
    high: float

    def columns(self, name: str) -> dict[str, Any]:
        """The three numbers as table columns `name`, `name_low`, `name_high`; None for NaN."""
        numbers = {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}
        return {name: None if math.isnan(number) else number for name, number in numbers.items()}


def resample_counts(
    num: int, *, repeats: int = 1000, seed: int = 0, blocks: np.ndarray | None = None
) -> np.ndarray:
    """Resampling counts: how often each item is drawn in each bootstrap replicate.

    Items of one block (texts rated by the same people, say) are drawn together, because they are
    not independent; the interval is then as wide as the number of blocks makes it.

    Args:
      num: number of items N.
      repeats: number of replicates R.
      seed: seed of the draws.
      blocks: `[N]` label of each item's block; None draws single items.

    Returns:
      `[R, N]` float64 counts; a row sums to N where blocks are of one size.

    Source: Efron and Tibshirani 1993, chapters 6 and 8.
    """
    if num == 0:
        return np.zeros((repeats, 0))
    generator = np.random.default_rng(seed)
    if blocks is None:
        return _drawn(generator, num, repeats)
    if len(blocks) != num:
        raise UserError(f"blocks has {len(blocks)} labels for {num} items; give one per item")
    labels, members = np.unique(blocks, return_inverse=True)
    return _drawn(generator, len(labels), repeats)[:, members]


def _drawn(generator: np.random.Generator, num: int, repeats: int) -> np.ndarray:
    """`[R, N]` how often each of N is among N draws with replacement, R times."""
    draws = generator.integers(num, size=(repeats, num))
    flat = (draws + num * np.arange(repeats)[:, None]).ravel()
    counts = np.bincount(flat, minlength=repeats * num)
    return counts.reshape(repeats, num).astype(np.float64)


def estimate(value: float, replicates: np.ndarray) -> Estimate:
    """Estimate of a value, with the 2.5% and 97.5% quantiles of its finite replicates."""
    finite = replicates[np.isfinite(replicates)]
    if not len(finite):
        return Estimate(value=float(value), low=float("nan"), high=float("nan"))
    low, high = np.quantile(finite, [0.025, 0.975])
    return Estimate(value=float(value), low=float(low), high=float(high))


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Elementwise quotient, NaN where the denominator is 0: no data is not a score of 0."""
    numerator, denominator = np.asarray(numerator, float), np.asarray(denominator, float)
    defined = np.where(denominator == 0, np.nan, denominator)
    return numerator / defined


def mean_estimate(
    values: np.ndarray,
    *,
    repeats: int = 1000,
    seed: int = 0,
    blocks: np.ndarray | None = None,
) -> Estimate:
    """Estimate of the mean of `values [N]`, its 95% interval over items or blocks.

    Of several items in one block alone there is no interval: nothing says how another block would
    have turned out.

    >>> mean_estimate(np.array([2.0, 2.0, 2.0]))
    Estimate(value=2.0, low=2.0, high=2.0)
    """
    values = np.asarray(values, np.float64)
    counts = resample_counts(len(values), repeats=repeats, seed=seed, blocks=blocks)
    value = values.mean() if len(values) else float("nan")
    if blocks is not None and len(values) > len(np.unique(blocks)) == 1:
        return Estimate(value=float(value), low=math.nan, high=math.nan)
    return estimate(float(value), ratio(counts @ values, counts.sum(axis=1)))


def prompt_blocks(prompts: Sequence[Any]) -> np.ndarray:
    """Block labels `[N]` of the rows' prompts: rows of one prompt are drawn together.

    Several pairs or responses of a prompt say less than as many of different prompts. Rows without
    a prompt stand for themselves.

    Args:
      prompts: texts or conversations (lists of messages); equal ones are one prompt.

    >>> prompt_blocks(["Why?", "", "How?", "Why?", ""]).tolist()
    [0, 1, 2, 0, 3]
    """
    labels: dict[Any, int] = {}
    keys = [json.dumps(prompt, sort_keys=True) if prompt else i for i, prompt in enumerate(prompts)]
    return np.array([labels.setdefault(key, len(labels)) for key in keys], np.int64)
