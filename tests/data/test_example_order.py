"""The order of examples is a function of the step, and every example comes once an epoch."""

import numpy as np
import pytest

from jaxalign.data.example_order import (
    batch_indices,
    epoch_order,
    evaluation_batches,
    length_buckets,
)
from jaxalign.errors import UserError


def test_an_epoch_is_a_permutation_that_depends_on_seed_and_epoch():
    orders = {(s, e): epoch_order(50, s, e).tolist() for s in (0, 1) for e in (0, 1)}
    assert all(sorted(order) == list(range(50)) for order in orders.values())
    assert len({tuple(order) for order in orders.values()}) == 4
    assert orders[1, 1] == epoch_order(50, 1, 1).tolist()


@pytest.mark.parametrize("n, batch_size", [(10, 4), (3, 8), (1, 1), (7, 7), (64, 16)])
def test_every_example_comes_once_an_epoch_whatever_the_batch_size(n, batch_size):
    steps = -(-3 * n // batch_size)
    stream = np.concatenate([batch_indices(s, n, batch_size, seed=5) for s in range(steps)])
    for epoch in range(3):
        np.testing.assert_array_equal(stream[epoch * n : (epoch + 1) * n], epoch_order(n, 5, epoch))


def test_a_step_is_the_same_without_the_steps_before_it():
    assert batch_indices(1000, 37, 16, 3).tolist() == batch_indices(1000, 37, 16, 3).tolist()
    assert batch_indices(1000, 37, 16, 3).tolist() != batch_indices(1000, 37, 16, 4).tolist()
    # a twice as large batch holds the examples of two steps
    both = np.concatenate([batch_indices(2 * 500, 37, 8, 3), batch_indices(2 * 500 + 1, 37, 8, 3)])
    np.testing.assert_array_equal(batch_indices(500, 37, 16, 3), both)
    with pytest.raises(UserError, match="no examples"):
        batch_indices(0, 0, 4, 0)


def test_evaluation_sees_every_row_once():
    batches = evaluation_batches(10, 4)
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert np.concatenate(batches).tolist() == list(range(10))
    assert evaluation_batches(0, 4) == []


def test_length_buckets_use_every_example_once_an_epoch():
    lengths = np.random.default_rng(0).integers(3, 41, 103)
    order = length_buckets(lengths, buckets=3, batch_size=8, seed=0)
    assert len(order.limits) == 3 and order.limits[-1] == lengths.max()
    for size, limit in zip(order.rows, order.limits, strict=True):
        assert size % 4 == 0 and 8 * 40 - 4 * limit < size * limit <= 8 * 40
    per_epoch = order.batches
    for epoch in range(2):
        steps = range(epoch * per_epoch, (epoch + 1) * per_epoch)
        batches = [order.batch(step) for step in steps]
        assert sorted(np.concatenate([b[0] for b in batches])) == list(range(103))
        for examples, length, rows in batches:
            assert 0 < len(examples) <= rows and lengths[examples].max() <= length
    again = length_buckets(lengths, buckets=3, batch_size=8, seed=0)
    for step in (0, per_epoch, 5):  # a pure function of the step, in any order
        np.testing.assert_array_equal(again.batch(step)[0], order.batch(step)[0])
    other = length_buckets(lengths, buckets=3, batch_size=8, seed=1)
    assert any(
        len(a) != len(b) or (a != b).any()
        for a, b in ((other.batch(i)[0], order.batch(i)[0]) for i in range(per_epoch))
    )


ROWS_OF_BUCKETS = [(8, (20, 12, 8)), (6, (16, 8, 6)), (7, (18, 11, 7))]


@pytest.mark.parametrize(("batch_size", "rows"), ROWS_OF_BUCKETS)
def test_rows_of_a_bucket_follow_its_length_and_nothing_else(batch_size, rows):
    # 8 x 32, 6 x 32, 7 x 32 tokens over 12, 20 and 32; down to a multiple of 4, 2 and 1
    lengths = [12] * 11 + [20] * 10 + [32] * 9
    order = length_buckets(lengths, buckets=3, batch_size=batch_size, seed=0)
    assert (order.limits, order.rows) == ((12, 20, 32), rows)


def test_one_bucket_is_plain_batches():
    order = length_buckets([3, 9, 5], buckets=1, batch_size=2, seed=0)
    assert order.limits == (9,) and order.rows == (2,)
