"""Batches of a scoring pass whose outputs belong to tokens: several texts in a row, one shape.

Packed texts of any number and lengths are computed by one program with little padding, and the same
program serves other texts later.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from jaxalign.data.packing import best_fit
from jaxalign.data.scoring_batches import MOST_PADDED, scoring_batches

SPANS = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0)  # candidates: rows so many times the longest text
UNIT = 8  # least step from one candidate for the length of a row to the next
BATCH = 16  # tokens that could be computed in the time that a batch takes beside its tokens
ATTENTION = 8192  # tokens of a row at which attention takes as long as all else, about
Shape = tuple[int, int]  # rows, and tokens of a row


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackedTexts:
    """Texts that are scored at once.

    texts: for each row the positions of its texts among all; rows may be missing.
    shape: rows of the batch, and tokens of a row.
    """

    texts: list[list[int]]
    shape: Shape


def on_grid(length: int) -> int:
    """The length itself or the next one of a few: eight or more to each power of two.

    >>> [on_grid(length) for length in (3, 70, 137, 1025)]
    [8, 72, 144, 1152]
    """
    unit = max(UNIT, 2 ** ((length - 1).bit_length() - 4))
    return -(-length // unit) * unit


def packed_scoring(
    lengths: Sequence[int],
    *,
    shape_cost: float,
    most_tokens: int,
    longest_row: int,
    multiple: int = 1,
) -> list[PackedTexts]:
    """Batches in which every text comes once, with at most `MOST_PADDED` tokens computed for each
    that is needed where the devices divide the rows.

    They have one shape, which the lengths alone decide: that with the least sum of tokens and of
    what its program costs. Only where texts do not fit together well, they have as many as
    `scoring_batches` finds, a text in a row.

    Args:
      lengths: `[N]` tokens of each text, or of each group of texts that stays together.
      shape_cost: tokens that could be computed in the time that a program takes to compile.
      most_tokens: of a batch, but for a longer row.
      longest_row: that the model reads.
      multiple: the rows of a batch are one of this number (devices).

    >>> [batch.shape for batch in packed_scoring(
    ...     [44, 50, 45, 50], shape_cost=100, most_tokens=104, longest_row=512)]
    [(1, 104), (1, 104)]
    """
    if not len(lengths):
        return []
    sizes = np.asarray(lengths)
    order = np.argsort(-sizes, kind="stable")
    total, best, least = int(sizes.sum()), None, np.inf
    for length in _row_lengths(sizes, max(int(sizes.max()), min(longest_row, most_tokens))):
        rows = best_fit(sizes[order], length)
        for size in _row_counts(len(rows), max(1, most_tokens // length), multiple):
            count = -(-len(rows) // size)
            tokens, shape = count * size * length, (size, length)
            cost = tokens * (1 + length / ATTENTION) + BATCH * count
            # one on the grid may be in a cache
            cost += shape_cost * (0.5 if length == on_grid(length) else 1.0)
            if tokens <= MOST_PADDED * total and cost < least:
                best, least = (rows, shape), cost
    if best is None:
        parts = scoring_batches(lengths, shape_cost=shape_cost, multiple=multiple)
        return [
            PackedTexts(texts=[[int(i)] for i in part.index], shape=(part.rows, part.length))
            for part in parts
        ]
    rows, shape = best
    positions = [[int(order[place]) for place in row] for row in rows]
    starts = range(0, len(rows), shape[0])
    return [PackedTexts(texts=positions[at : at + shape[0]], shape=shape) for at in starts]


def _row_lengths(sizes: np.ndarray, most: int) -> list[int]:
    """Candidates for the tokens of a row, ascending."""
    longest, total = int(sizes.max()), int(sizes.sum())
    most = min(most, int(SPANS[-1] * longest) + UNIT)
    found = {longest, total, on_grid(total), *(on_grid(int(longest * span)) for span in SPANS)}
    return sorted(length for length in found if longest <= length <= most)


def _row_counts(rows: int, most: int, multiple: int) -> Iterator[int]:
    """Candidates for the rows of a batch: of the least number of batches and the next two."""
    fewest = -(-rows // most)
    for batches in range(fewest, fewest + 3):
        size = -(-rows // batches)
        yield -(-size // multiple) * multiple
