"""Packed batches of a scoring pass: every text once, little padding, one shape mostly."""

import numpy as np
import pytest

from jaxalign.data.packed_scoring import on_grid, packed_scoring
from jaxalign.data.scoring_batches import MOST_PADDED
from tests.data.test_scoring_batches import RANDOM

COUNTS = [*range(1, 12), 40, 137, 500]
LONGEST = 40_000


def computed(batches) -> int:
    return sum(batch.shape[0] * batch.shape[1] for batch in batches)


@pytest.mark.parametrize("kind", RANDOM)
@pytest.mark.parametrize("most_tokens", [1024, 16_384])
def test_every_text_comes_once_with_little_padding(kind, most_tokens):
    rng = np.random.default_rng(0)
    for count in COUNTS:
        lengths = RANDOM[kind](rng, count)
        for longest_row in (int(lengths.max()), LONGEST):
            batches = packed_scoring(
                lengths, shape_cost=700, most_tokens=most_tokens, longest_row=longest_row
            )
            texts = [i for batch in batches for row in batch.texts for i in row]
            assert sorted(texts) == list(range(count))
            assert computed(batches) <= MOST_PADDED * lengths.sum()
            for batch in batches:
                rows, length = batch.shape
                assert len(batch.texts) <= rows and length <= longest_row
                assert all(lengths[row].sum() <= length for row in batch.texts)


def test_texts_of_ordinary_lengths_need_one_program():
    rng = np.random.default_rng(0)
    for count in (11, 25, 60, 500):
        batches = packed_scoring(
            rng.integers(40, 140, count), shape_cost=700, most_tokens=1024, longest_row=8192
        )
        assert len({batch.shape for batch in batches}) == 1


def test_devices_divide_the_rows():
    lengths = np.random.default_rng(0).integers(40, 140, 200)
    sizes = {"shape_cost": 700, "most_tokens": 4096, "longest_row": 8192}
    for batch in packed_scoring(lengths, multiple=8, **sizes):
        assert batch.shape[0] % 8 == 0


def test_nothing_and_one_text():
    sizes = {"shape_cost": 700, "most_tokens": 1024, "longest_row": 8192}
    assert packed_scoring([], **sizes) == []
    assert [batch.texts for batch in packed_scoring([1], **sizes)] == [[[0]]]


def test_a_grid_is_fine_enough_for_the_bound_on_padding():
    lengths = np.arange(64, 100_000)
    rounded = np.array([on_grid(int(length)) for length in lengths])
    assert (rounded >= lengths).all() and (rounded <= 1.13 * lengths).all()
