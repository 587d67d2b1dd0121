"""Batches of supervised fine-tuning: texts of similar length, or several texts in a row."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from jaxalign.batches.tokens import PackedBatch, TokenBatch
from jaxalign.data.batching import token_batch
from jaxalign.data.chat import TokenRow
from jaxalign.data.example_order import length_buckets
from jaxalign.data.packing import packed_batch, packed_rows
from jaxalign.layouts.layout import pad_rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextBatches:
    """Batches of texts by number, with their mean size and the length of an epoch.

    batch: number of the batch -> the batch, in NumPy; a pure function.
    tokens: real ones of a batch, on average.
    per_epoch: batches in which every text comes once.
    note: what a run says of them; may be empty.
    """

    batch: Callable[[int], TokenBatch | PackedBatch]
    tokens: int
    per_epoch: int
    note: str = ""


def bucketed_batches(
    rows: Sequence[TokenRow], batch_size: int, *, buckets: int, pad_id: int, seed: int
) -> TextBatches:
    """Batches of texts of similar length, a text in each row."""
    order = length_buckets(
        [len(row) for row in rows], buckets=buckets, batch_size=batch_size, seed=seed
    )

    def batch(number: int):
        index, length, size = order.batch(number)
        chosen = [rows[i] for i in index]
        return pad_rows(token_batch(chosen, pad_id=pad_id, length=length, index=index), size)[0]

    tokens = round(float(order.lengths.sum()) / order.batches)
    return TextBatches(batch=batch, tokens=tokens, per_epoch=order.batches)


def packed_batches(
    rows: Sequence[TokenRow], batch_size: int, *, length: int, pad_id: int, seed: int
) -> TextBatches:
    """Batches of rows that hold several texts each, up to `length` tokens."""
    order = packed_rows(
        [len(row) for row in rows], capacity=length, batch_size=batch_size, seed=seed
    )

    tokens, size = int(order.lengths.sum()), len(order.places) * length
    note = (
        f"{len(rows):,} texts in {len(order.places):,} rows of {length} tokens, "
        f"{1 - tokens / size:.1%} of them padding"
    )

    def batch(number: int):
        index = order.batch(number)
        chosen = [[rows[i] for i in row] for row in index]
        shape = {"pad_id": pad_id, "length": length, "texts": order.texts}
        return pad_rows(packed_batch(chosen, index=index, **shape), batch_size)[0]

    mean = round(tokens / order.batches)
    return TextBatches(batch=batch, tokens=mean, per_epoch=order.batches, note=note)


def with_token_counts(_: Any, batch: TokenBatch | PackedBatch):
    """The batch with its number of real tokens and its share of padding (`prepare` of a loop)."""
    return batch, {"tokens": float(batch.mask.sum()), "padding": float(1 - batch.mask.mean())}
