"""Batches of a scoring pass over rows of any lengths: few shapes, little padding.

Every shape is a program to compile, every token of padding is computed for nothing. The sorted
lengths are cut into intervals, each with one shape of batch, by dynamic programming: the cheapest
cut of all in which padding stays within a bound.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

MOST_TOKENS = 16_384  # of a batch, padding included
MOST_ROWS = 256
MOST_PADDED = 1.3  # tokens that are computed for each one that is needed
GRID = 1.02  # lengths within so small a ratio go into one interval
Array = np.ndarray[Any, Any]


def most_rows(length: int) -> int:
    """Most rows of this many tokens in a batch, at least 1.

    >>> most_rows(10), most_rows(1000)
    (256, 16)
    """
    return min(MOST_ROWS, MOST_TOKENS // length) or 1


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ScoringBatch:
    """Rows that are scored at once.

    index: their positions among all rows.
    rows: rows of the batch; what is missing is padding.
    length: columns of the batch.
    """

    index: Array
    rows: int
    length: int

    @property
    def tokens(self) -> int:
        """Tokens that are computed, padding included."""
        return self.rows * self.length


def scoring_batches(
    lengths: Sequence[int] | Array, *, shape_cost: float, multiple: int = 1
) -> list[ScoringBatch]:
    """Batches in which every row comes once, with at most `MOST_PADDED` tokens computed for each
    that is needed where the devices divide the rows.

    Of the cuts of the sorted lengths into intervals it is the one with the least sum of tokens and
    `shape_cost` times shapes; so a costlier shape makes fewer of them, as far as the bound lets it.

    Args:
      lengths: `[N]` tokens of each row, above 0.
      shape_cost: tokens that could be computed in the time that one more shape takes to compile.
      multiple: the rows of a batch are one of this number (devices).

    >>> [(batch.rows, batch.length) for batch in scoring_batches([9, 50, 8, 50], shape_cost=100)]
    [(4, 50)]
    >>> [(batch.rows, batch.length) for batch in scoring_batches([9, 90, 8, 50], shape_cost=10)]
    [(2, 9), (1, 50), (1, 90)]
    """
    if not len(lengths):
        return []
    sizes = np.asarray(lengths)
    order = np.argsort(sizes, kind="stable")
    limits, ends = _limits(sizes[order])
    batches: list[ScoringBatch] = []
    for start, stop in _cut(limits, ends, int(sizes.sum()), shape_cost, multiple):
        first, end = (int(ends[start - 1]) if start else 0), int(ends[stop])
        length = int(limits[stop])
        rows = int(_rows_of(np.array([end - first]), np.array([length]), multiple)[0, 0])
        batches += [
            ScoringBatch(index=order[at : min(at + rows, end)], rows=rows, length=length)
            for at in range(first, end, rows)
        ]
    return batches


def _limits(lengths: Array) -> tuple[Array, Array]:
    """Lengths at which an interval may end, and the number of rows up to each.

    Args:
      lengths: `[N]` in ascending order.
    """
    grid = np.floor(np.log(lengths) / np.log(GRID)).astype(int)
    is_last = np.append(grid[1:] != grid[:-1], True)
    return lengths[is_last], np.flatnonzero(is_last) + 1


def _rows_of(counts: Array, lengths: Array, multiple: int) -> Array:
    """Rows of a batch, and number of batches, `[2, ...]`, for so many rows of these lengths.

    Of the least number of batches and the next two it is the one with the least padding.
    """
    most = np.minimum(MOST_ROWS, MOST_TOKENS // lengths) // multiple * multiple
    fewest = -(-counts // np.maximum(most, multiple))
    choices = np.stack([fewest, fewest + 1, fewest + 2])
    rows = -(-counts // choices)
    rows = -(-rows // multiple) * multiple
    batches = -(-counts // rows)
    best = np.argmin(rows * batches, axis=0)[None]
    return np.stack([np.take_along_axis(x, best, axis=0)[0] for x in (rows, batches)])


def _cut(
    limits: Array, ends: Array, needed: int, shape_cost: float, multiple: int
) -> list[tuple[int, int]]:
    """First and last limit of every interval of the best cut."""
    starts = np.concatenate([[0], ends[:-1]])
    counts = ends[None, :] - starts[:, None]  # of the interval from limit i to limit j
    rows, batches = _rows_of(np.maximum(counts, 1), np.broadcast_to(limits, counts.shape), multiple)
    tokens = np.where(counts > 0, rows * batches * limits, np.inf)
    # least tokens of all up to limit j in so many intervals, and where the last of them starts
    least, origins = tokens[0], [np.zeros(len(limits), int)]
    best, value = len(limits), np.inf
    for shapes in range(1, len(limits) + 1):
        if shapes > 1:
            sums = np.concatenate([[np.inf], least[:-1]])[:, None] + tokens
            least = np.min(sums, axis=0)
            origins.append(np.argmin(sums, axis=0))
        total = float(least[-1])
        if total <= MOST_PADDED * needed and total + shape_cost * shapes < value:
            best, value = shapes, total + shape_cost * shapes
        if needed + shape_cost * (shapes + 1) >= value:  # more shapes cannot be better
            break
    stops = [len(limits) - 1]
    for origin in reversed(origins[1:best]):
        stops.append(int(origin[stops[-1]]) - 1)
    stops.reverse()
    return list(zip([0, *(stop + 1 for stop in stops[:-1])], stops, strict=True))
