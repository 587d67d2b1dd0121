"""Packing: several texts in one row of a batch, so that little of it is padding."""

import bisect
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxalign.batches.tokens import PackedBatch
from jaxalign.data.batching import token_batch
from jaxalign.data.chat import TokenRow
from jaxalign.errors import UserError


def packed_batch(
    rows: Sequence[Sequence[TokenRow]],
    *,
    pad_id: int,
    length: int | None = None,
    texts: int | None = None,
    index: Sequence[Sequence[int] | np.ndarray] | None = None,
) -> PackedBatch:
    """Packed batch `[B, T]`, the texts of each row one behind the other.

    Args:
      rows: B, of at least one text each.
      pad_id: of padding.
      length: T; the longest row by default.
      texts: S, at least as many as any row has; as many as the fullest has by default.
      index: global example indices of the texts of each row; counted through by default.

    Raises:
      UserError: a row is longer than `length` or has more than `texts` texts.
    """
    counts = [len(row) for row in rows]
    texts = max(counts) if texts is None else texts
    if max(counts) > texts:
        raise UserError(f"a row of {max(counts)} texts does not fit into {texts} places")
    joined = [
        TokenRow(
            np.concatenate([text.tokens for text in row]),
            np.concatenate([text.is_response for text in row]),
        )
        for row in rows
    ]
    whole = token_batch(joined, pad_id=pad_id, length=length)
    segments: Any = np.zeros(whole.tokens.shape, np.int32)
    indices: Any = np.zeros((len(rows), texts), np.int32)
    first = np.cumsum([0, *counts])
    for b, row in enumerate(rows):
        ends = np.cumsum([len(text) for text in row])[:-1]
        segments[b] = np.searchsorted(ends, np.arange(segments.shape[1]), side="right")
        indices[b, : len(row)] = np.arange(len(row)) + first[b] if index is None else index[b]
    return PackedBatch(
        tokens=whole.tokens,
        prompt_mask=whole.prompt_mask,
        response_mask=whole.response_mask,
        segments=segments,
        index=indices,
    )


def best_fit(lengths: Sequence[int] | np.ndarray, capacity: int) -> list[list[int]]:
    """Best-fit packing: the lengths in each row, each put into the fullest row with room for it.

    Longest first, this is "best-fit decreasing": of many rows at most 11/9 of the fewest that there
    can be.

    Args:
      lengths: in the order in which they are placed, each from 1 to `capacity`.
      capacity: of a row.

    Source: Johnson et al. 1974, https://doi.org/10.1137/0203025.

    >>> best_fit([6, 5, 4, 3, 1], 10)
    [[0, 2], [1, 3, 4]]
    """
    rows: list[list[int]] = []
    with_room: list[list[int]] = [[] for _ in range(capacity)]  # rows by the room that is left
    rooms: list[int] = []  # where there is such a row, ascending
    for place, length in enumerate(map(int, lengths)):
        at = bisect.bisect_left(rooms, length)
        if at == len(rooms):
            row, room = len(rows), capacity
            rows.append([])
        else:
            room = rooms[at]
            row = with_room[room].pop()
            if not with_room[room]:
                del rooms[at]
        rows[row].append(place)
        if left := room - length:
            if not with_room[left]:
                bisect.insort(rooms, left)
            with_room[left].append(row)
    return rows


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PackedRows:
    """Schedule of packed batches: which texts share a row, and which rows a batch.

    The lengths are packed once, from the longest on. Every epoch deals the texts of each length
    anew to the places of that length, and takes the rows in another order. So all epochs have
    equally many batches, a text is used once in each, none is cut, and what a batch holds is a
    function of its number alone. The last batch of an epoch may have fewer rows (`pad_rows`).

    lengths: `[N]` tokens of each text.
    places: the rows, each as places in the order of descending length.
    batch_size: rows of a batch.
    seed: of the orders.
    """

    lengths: np.ndarray
    places: list[list[int]]
    batch_size: int
    seed: int

    def batch(self, step: int) -> list[np.ndarray]:
        """Indices of the texts of each row of one training step."""
        epoch, number = divmod(step, self.batches)
        texts, rows = self._order(epoch)
        start = number * self.batch_size
        return [texts[self.places[row]] for row in rows[start : start + self.batch_size]]

    @property
    def batches(self) -> int:
        """Number of batches of an epoch."""
        return -(-len(self.places) // self.batch_size)

    @property
    def texts(self) -> int:
        """Number of texts of the fullest row."""
        return max(map(len, self.places))

    @functools.lru_cache(maxsize=2)  # noqa: B019  (two epochs of one training run)
    def _order(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Index of the text at every place, and the rows in the order of an epoch."""
        rng = np.random.default_rng([self.seed, epoch])
        shuffled = rng.permutation(len(self.lengths))
        texts = shuffled[np.argsort(-self.lengths[shuffled], kind="stable")]
        return texts, rng.permutation(len(self.places))


def packed_rows(lengths: Sequence[int], *, capacity: int, batch_size: int, seed: int) -> PackedRows:
    """Schedule of texts of these lengths in packed rows of up to `capacity` tokens.

    Args:
      lengths: `[N]` tokens of each text.
      capacity: tokens of a row.
      batch_size: rows of a batch.
      seed: of the orders.

    Raises:
      UserError: there is no text, or one that is longer than a row.
    """
    sizes = np.asarray(lengths)
    if not len(sizes):
        raise UserError("there are no examples to draw batches from")
    if sizes.max() > capacity:
        raise UserError(f"a text of {sizes.max()} tokens does not fit rows of {capacity}")
    places = best_fit(np.sort(sizes)[::-1], capacity)
    return PackedRows(lengths=sizes, places=places, batch_size=batch_size, seed=seed)
