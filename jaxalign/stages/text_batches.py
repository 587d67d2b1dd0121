"""The batches of supervised fine-tuning: texts of similar length, or several texts a row."""

import dataclasses
from collections.abc import Callable, Sequence

from jaxalign.batches import PackedBatch, TokenBatch
from jaxalign.config import FitConfig
from jaxalign.data.batching import length_buckets, token_batch
from jaxalign.data.chat import TokenRow
from jaxalign.data.packing import packed_batch, packed_rows
from jaxalign.errors import UserError
from jaxalign.stages.run import Run
from jaxalign.train.layouts import pad_rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextBatches:
    """What a training loop reads.

    batch: number of the batch -> the batch, in NumPy; a pure function.
    tokens: real ones of a batch, on average.
    """

    batch: Callable[[int], TokenBatch | PackedBatch]
    tokens: int


def bucketed(
    run: Run, rows: Sequence[TokenRow], settings: FitConfig, *, buckets: int, pad_id: int
) -> TextBatches:
    """A text a row, in batches of similar lengths from so many ranges."""
    multiple = len(run.layout.devices) * settings.micro_batches
    if settings.batch_size % multiple:
        raise UserError(
            f"batch_size {settings.batch_size} is not a multiple of {len(run.layout.devices)} "
            f"devices x micro_batches {settings.micro_batches}"
        )
    order = length_buckets(
        [len(row) for row in rows],
        buckets=buckets,
        batch_size=settings.batch_size,
        multiple=multiple,
        seed=run.seed,
    )

    def batch(number: int):
        index, length, size = order.batch(number)
        chosen = [rows[i] for i in index]
        return pad_rows(token_batch(chosen, pad_id=pad_id, length=length, index=index), size)[0]

    return TextBatches(batch=batch, tokens=round(float(order.lengths.sum()) / order.batches))


def packed(
    run: Run, rows: Sequence[TokenRow], settings: FitConfig, *, length: int, pad_id: int
) -> TextBatches:
    """As many texts a row as its `length` tokens hold; a batch counts such rows."""
    order = packed_rows(
        [len(row) for row in rows], capacity=length, batch_size=settings.batch_size, seed=run.seed
    )

    tokens, size = int(order.lengths.sum()), len(order.places) * length
    print(
        f"{len(rows):,} texts in {len(order.places):,} rows of {length} tokens, "
        f"{1 - tokens / size:.1%} of them padding"
    )

    def batch(number: int):
        index = order.batch(number)
        chosen = [[rows[i] for i in row] for row in index]
        shape = {"pad_id": pad_id, "length": length, "texts": order.texts}
        return pad_rows(packed_batch(chosen, index=index, **shape), settings.batch_size)[0]

    return TextBatches(batch=batch, tokens=round(tokens / order.batches))


def counted(_, batch: TokenBatch | PackedBatch):
    """The batch, and how many of its tokens are real, what share padding (`prepare` of a loop)."""
    return batch, {"tokens": float(batch.mask.sum()), "padding": float(1 - batch.mask.mean())}
