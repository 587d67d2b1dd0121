"""Batches of a scoring pass: every row once, little padding, few shapes, and the best cut."""

import itertools

import numpy as np
import pytest

from jaxalign.data import scoring_batches as module
from jaxalign.data.scoring_batches import MOST_PADDED, MOST_ROWS, MOST_TOKENS, scoring_batches

RANDOM = {
    "uniform": lambda rng, n: rng.integers(1, 1001, n),
    "log-uniform": lambda rng, n: np.exp(rng.uniform(0, 7.6, n)).astype(int),
    "two kinds": lambda rng, n: np.where(
        rng.random(n) < 0.5, rng.integers(1, 30, n), rng.integers(500, 4000, n)
    ),
    "narrow": lambda rng, n: rng.integers(40, 141, n),
    "equal": lambda rng, n: np.full(n, rng.integers(1, 9000)),
    "long": lambda rng, n: rng.integers(3000, 20_000, n),
    "heavy tail": lambda rng, n: (1 + 10 * rng.pareto(1.1, n)).astype(int).clip(1, 30_000),
}
COUNTS = [*range(1, 21), *range(23, 1000, 41), 255, 256, 257, 511, 512, 513, 999, 1000]
MOST_SHAPES = 10  # where a shape costs more than any padding


def computed(batches) -> int:
    return sum(batch.tokens for batch in batches)


def shapes(batches) -> int:
    return len({(batch.rows, batch.length) for batch in batches})


@pytest.mark.parametrize("kind", RANDOM)
@pytest.mark.parametrize("shape_cost", [0.0, 1000.0, 1e9])
def test_every_row_comes_once_with_little_padding_in_few_shapes(kind, shape_cost):
    rng = np.random.default_rng(0)
    for count in COUNTS:
        lengths = RANDOM[kind](rng, count)
        batches = scoring_batches(lengths, shape_cost=shape_cost)
        index = np.concatenate([batch.index for batch in batches])
        assert sorted(index) == list(range(count))
        assert computed(batches) <= MOST_PADDED * lengths.sum()
        for batch in batches:
            assert len(batch.index) <= batch.rows <= MOST_ROWS
            assert lengths[batch.index].max() <= batch.length
            assert batch.tokens <= MOST_TOKENS or batch.rows == 1
        if shape_cost == 1e9:
            assert shapes(batches) <= MOST_SHAPES


def test_the_cut_is_the_best_of_all():
    """All cuts of a few lengths, with the same rows of a batch in every interval (one batch)."""
    rng = np.random.default_rng(1)
    for cost in (0.0, 20.0, 100.0, 1e6):
        for _ in range(20):
            lengths = np.sort(rng.integers(5, 200, rng.integers(1, 8)))
            found = scoring_batches(lengths, shape_cost=cost)
            values = []
            places = range(1, len(lengths))
            for n in range(len(lengths)):
                for cut in itertools.combinations(places, n):
                    parts = np.split(lengths, cut)
                    tokens = sum(len(part) * part.max() for part in parts)
                    if tokens <= MOST_PADDED * lengths.sum():
                        values.append(tokens + cost * len(parts))
            value = computed(found) + cost * len(found)
            # lengths within 2% are one limit, so a cut between them is left out
            assert min(values) <= value <= min(values) + 0.02 * lengths.sum()


def test_rows_divide_over_the_devices():
    lengths = np.random.default_rng(2).integers(40, 141, 51)
    batches = scoring_batches(lengths, shape_cost=1e9, multiple=8)
    assert all(batch.rows % 8 == 0 for batch in batches)
    assert sorted(np.concatenate([batch.index for batch in batches])) == list(range(51))
    assert [batch.rows for batch in scoring_batches([9], shape_cost=0.0, multiple=8)] == [8]
    long = scoring_batches([MOST_TOKENS] * 3, shape_cost=0.0, multiple=2)
    assert [batch.rows for batch in long] == [2, 2]
    assert module.scoring_batches([], shape_cost=0.0) == []
