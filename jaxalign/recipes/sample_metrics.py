"""Metrics of an iteration of sampling, from arrays that are on the host already."""

import time
from typing import Any

import numpy as np

from jaxalign.batches.tokens import TokenBatch
from jaxalign.recipes.sample_records import has_ended
from jaxalign.system.console import warn

MOST_EQUAL = 0.8  # share of groups of equal scores
PATIENCE = 5  # iterations in a row with a larger one, after which a run warns


class PhaseClock:
    """Clock of the phases of an iteration, one behind the other; `metrics` has their seconds."""

    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}
        self._since = time.monotonic()

    def end(self, phase: str) -> None:
        """End a phase at this moment, at which the next one begins."""
        now = time.monotonic()
        self.metrics[f"seconds/{phase}"] = now - self._since
        self._since = now


class EqualGroups:
    """Watch over the share of groups whose scores are all equal, which warns once."""

    def __init__(self, stage: str):
        self.stage = stage
        self._in_a_row = 0

    def __call__(self, share: float) -> None:
        self._in_a_row = self._in_a_row + 1 if share > MOST_EQUAL else min(self._in_a_row, 0)
        if self._in_a_row == PATIENCE:
            self._in_a_row = -(10**9)  # said once
            warn(
                f"{self.stage}: all scores of a group are equal in {share:.0%} of the groups, and "
                f"in more than {MOST_EQUAL:.0%} for {PATIENCE} iterations: they teach nothing. Use "
                "prompts that are neither too easy nor too hard, a larger group_size or "
                "temperature, or a reward with more grades"
            )


def mean_advantages(advantages: Any, mask: np.ndarray) -> np.ndarray:
    """`[B]` advantages of responses; of tokens, their mean over the response, NaN where nothing is
    learned from.

    Args:
      advantages: of B responses or of their tokens, in the order of the rows.
      mask: `[B, R]` bool, of the tokens that are learned from.
    """
    values = np.asarray(advantages)
    values = values.reshape(len(mask), -1)
    if values.shape[1] == 1:
        values = np.broadcast_to(values, mask.shape)
    tokens = mask.sum(axis=1)
    sums = np.where(mask, values, 0).sum(axis=1)
    return np.where(tokens > 0, sums / np.maximum(tokens, 1), np.nan)


def response_metrics(rows: TokenBatch, stop_ids: tuple[int, ...]) -> dict[str, float]:
    """Tokens of sampled responses, also of those alone that ended, and all tokens with the prompts.

    A response that was cut off has as many tokens as sampling allows.

    Args:
      rows: `[B, T]` in NumPy.
      stop_ids: the tokens that end a response.
    """
    lengths = np.asarray(rows.response_mask).sum(axis=1)
    whole = lengths[has_ended(rows, stop_ids)]
    metrics = {
        "response/length_min": float(lengths.min()),
        "response/length_max": float(lengths.max()),
        "tokens": float(np.asarray(rows.mask).sum()),
    }
    if len(whole):
        metrics["response/length_ended"] = float(whole.mean())
        metrics["response/length_ended_max"] = float(whole.max())
    return metrics
