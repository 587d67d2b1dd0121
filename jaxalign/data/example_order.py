"""The examples of each training step: epochs in random order, and batches of similar lengths.

The examples of a batch are a pure function of the step.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np

from jaxalign.errors import UserError


def epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    """Permutation of `range(n)` for one epoch, a pure function of its arguments."""
    return np.random.default_rng([seed, epoch]).permutation(n)


def batch_indices(step: int, n: int, batch_size: int, seed: int) -> np.ndarray:
    """Example indices `[batch_size]` of one training step.

    The epochs' permutations, one behind the other, are dealt out in batches: every example is used
    once an epoch, none is dropped, and a batch may end one epoch and begin the next.
    """
    if n == 0:
        raise UserError("there are no examples to draw batches from")
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs = range(positions[0] // n, positions[-1] // n + 1)
    orders = np.stack([epoch_order(n, seed, epoch) for epoch in epochs])
    return orders[positions // n - epochs[0], positions % n]


def drawn_examples(n: int, draws: int, seed: int) -> np.ndarray:
    """Examples that the first `draws` draws of `batch_indices` take, in ascending order.

    They are all of them from the end of the first epoch on.
    """
    return np.sort(epoch_order(n, seed, 0)[:draws])


def evaluation_batches(n: int, batch_size: int) -> list[np.ndarray]:
    """Example indices in order, in batches; the last may be smaller (`pad_rows`)."""
    return [np.arange(start, min(start + batch_size, n)) for start in range(0, n, batch_size)]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LengthBuckets:
    """Schedule of batches of texts of similar length, so that little of a batch is padding.

    Every example is used once an epoch; batches of all buckets come in random order. A batch of
    short texts has more rows, so that all batches have about as many tokens; the last batch of a
    bucket may have fewer rows than the others (`pad_rows`). Few buckets mean few compilations.

    lengths: `[N]` tokens of each example.
    limits: longest length of each bucket, ascending.
    rows: rows of a batch in each bucket.
    seed: of the orders.
    """

    lengths: np.ndarray
    limits: tuple[int, ...]
    rows: tuple[int, ...]
    seed: int

    def batch(self, step: int) -> tuple[np.ndarray, int, int]:
        """Example indices of one training step, and length and number of rows of its batch."""
        epoch, batch = divmod(step, self.batches)
        bucket, examples = self._batches(epoch)[batch]
        return examples, self.limits[bucket], self.rows[bucket]

    @property
    def batches(self) -> int:
        """Number of batches of an epoch."""
        return len(self._batches(0))

    @functools.lru_cache(maxsize=2)  # noqa: B019  (two epochs of one training run)
    def _batches(self, epoch: int) -> list[tuple[int, np.ndarray]]:
        """Bucket and example indices of every batch of an epoch."""
        rng = np.random.default_rng([self.seed, epoch])
        bucket_of = np.searchsorted(self.limits, self.lengths)
        batches = []
        for bucket, rows in enumerate(self.rows):
            order = rng.permutation(np.flatnonzero(bucket_of == bucket))
            parts = [order[start : start + rows] for start in range(0, len(order), rows)]
            batches += [(bucket, part) for part in parts]
        return [batches[i] for i in rng.permutation(len(batches))]


def length_buckets(
    lengths: Sequence[int], *, buckets: int, batch_size: int, seed: int
) -> LengthBuckets:
    """Schedule with buckets of lengths that hold about equally many examples each.

    Which examples a batch holds does not depend on where it will be computed: what divides it into
    equal parts is rows of padding (`Run.step`). The rows of a bucket are rounded down to a multiple
    of 4 where `batch_size` is one (of 2 where it is even), so that a few devices or micro-batches
    need none.

    Args:
      lengths: `[N]` tokens of each example.
      buckets: number of buckets at most; 1 is plain batches of the longest length.
      batch_size: rows in the bucket of the longest; the others have as many tokens.
      seed: of the orders.
    """
    sizes = np.asarray(lengths)
    shares = np.arange(1, buckets + 1) / buckets
    limits = {-(-int(np.quantile(sizes, share)) // 4) * 4 for share in shares[:-1]}
    limits = [*sorted(limit for limit in limits if limit < sizes.max()), int(sizes.max())]
    unit = math.gcd(batch_size, 4)
    rows = [batch_size * limits[-1] // limit // unit * unit for limit in limits]
    return LengthBuckets(lengths=sizes, limits=tuple(limits), rows=tuple(rows), seed=seed)
