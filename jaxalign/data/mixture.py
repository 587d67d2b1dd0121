"""Rows of several sources in given proportions."""

from collections.abc import Sequence

import numpy as np

from jaxalign.errors import UserError


def mixed_rows(sizes: Sequence[int], weights: Sequence[float], seed: int) -> list[np.ndarray]:
    """The rows of each source that an epoch has, ascending: as many in all as the sources have.

    A source has its weight's share of them. Where that is more rows than it has, all come equally
    often, up to one; where it is fewer, the seed draws them, the same ones for every epoch.

    Args:
      sizes: rows of each source.
      weights: of each source, > 0; only their proportions matter.
      seed: of the draw.

    Raises:
      UserError: a source has no row, or its share is not one.

    >>> [rows.tolist() for rows in mixed_rows([2, 4], [2, 1], seed=0)]
    [[0, 0, 1, 1], [2, 3]]
    """
    if not all(sizes):
        raise UserError(
            f"source {list(sizes).index(0) + 1} of the mixture has no row left to train on; "
            "hold fewer rows out, or leave it out"
        )
    shares = np.asarray(weights, np.float64) / np.sum(weights) * np.sum(sizes)
    counts = np.floor(shares).astype(np.int64)
    left = int(np.sum(sizes) - counts.sum())
    counts[np.argsort(counts - shares, kind="stable")[:left]] += 1  # the largest remainders
    if not counts.all():
        raise UserError(
            f"source {int(np.argmin(counts)) + 1} of the mixture has a weight of less than one row "
            f"in {sum(sizes):,}; give it more, or leave it out"
        )
    rng = np.random.default_rng(seed)
    rows = []
    for size, count in zip(sizes, counts, strict=True):
        repeats, more = divmod(int(count), size)
        drawn = rng.choice(size, more, replace=False)
        rows.append(np.sort(np.concatenate([np.tile(np.arange(size), repeats), drawn])))
    return rows
