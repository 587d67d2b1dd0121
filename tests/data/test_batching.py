"""Batches hold what went in, whatever the padding; the order of examples is a function of the
step.
"""

import numpy as np
import pytest

from jaxalign.data.batching import (
    batch_indices,
    comparison_batch,
    epoch_order,
    evaluation_batches,
    length_buckets,
    mismatched_rows,
    preference_batch,
    prompt_batch,
    token_batch,
    truncated_row,
)
from jaxalign.data.chat import token_row
from jaxalign.errors import UserError

PAD = 9


def row(prompt, response):
    return token_row((prompt, False), (response, True))


ROWS = [row([1, 5], [6, 2]), row([1], [7]), row([1, 5, 5], [])]


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("length", [None, 4, 7])
def test_a_batch_holds_its_rows(padding, length):
    batch = token_batch(ROWS, pad_id=PAD, length=length, padding=padding)
    assert batch.tokens.shape == (3, length or 4)
    assert not (batch.prompt_mask & batch.response_mask).any()
    for b, given in enumerate(ROWS):
        np.testing.assert_array_equal(batch.tokens[b][batch.mask[b]], given.tokens)
        np.testing.assert_array_equal(batch.response_mask[b][batch.mask[b]], given.is_response)
        assert (batch.tokens[b][~batch.mask[b]] == PAD).all()
        # the real tokens stand together, at the end that the padding leaves
        edge = slice(-len(given), None) if padding == "left" else slice(len(given))
        assert batch.mask[b][edge].all()


def test_dtypes_and_indices():
    batch = token_batch(ROWS, pad_id=PAD, index=[40, 7, 8])
    assert (batch.tokens.dtype, batch.index.dtype) == (np.int32, np.int32)
    assert (batch.prompt_mask.dtype, batch.response_mask.dtype) == (bool, bool)
    assert batch.index.tolist() == [40, 7, 8]
    assert token_batch(ROWS, pad_id=PAD).index.tolist() == [0, 1, 2]


def test_nothing_is_cut_silently():
    with pytest.raises(UserError, match="4 tokens does not fit length 3"):
        token_batch(ROWS, pad_id=PAD, length=3)
    with pytest.raises(UserError, match="does not fit"):
        preference_batch(ROWS[1:2], ROWS[:1], pad_id=PAD, length=2)


def test_truncation_loses_the_end_and_only_that():
    cut = truncated_row(ROWS[0], 3)
    assert cut.tokens.tolist() == [1, 5, 6] and cut.is_response.tolist() == [False, False, True]
    assert truncated_row(ROWS[0], 4) == ROWS[0]


def test_an_interleaved_row_keeps_both_masks():
    given = token_row(([1, 3], False), ([4], True), ([5], False), ([6, 2], True))
    batch = token_batch([given], pad_id=PAD, length=8)
    assert batch.prompt_mask[0].tolist() == [1, 1, 0, 1, 0, 0, 0, 0]
    assert batch.response_mask[0].tolist() == [0, 0, 1, 0, 1, 1, 0, 0]


def test_prompts_end_where_sampling_begins():
    batch = prompt_batch([[1, 5, 6], [1]], pad_id=PAD, length=4)
    assert batch.tokens.tolist() == [[PAD, 1, 5, 6], [PAD, PAD, PAD, 1]]
    assert batch.prompt_mask.tolist() == [[0, 1, 1, 1], [0, 0, 0, 1]]
    assert not batch.response_mask.any()


def test_both_sides_of_a_pair_have_one_length():
    batch = preference_batch(ROWS[1:2], ROWS[:1], pad_id=PAD, index=[3])
    assert batch.chosen.tokens.tolist() == [[1, 7, PAD, PAD]]
    assert batch.rejected.tokens.tolist() == [[1, 5, 6, 2]]
    assert batch.chosen.index.tolist() == batch.rejected.index.tolist() == [3]
    assert batch.reference is None and batch.weights.tolist() == [1.0]
    assert batch.weights.dtype == np.float32


def test_groups_keep_their_texts_in_order():
    preferences = np.arange(8.0).reshape(2, 2, 2)
    batch = comparison_batch([ROWS[:2], ROWS[1:]], preferences, pad_id=PAD, length=5)
    assert batch.texts.tokens.shape == batch.texts.response_mask.shape == (2, 2, 5)
    for g, k, r in [(0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2)]:
        found = batch.texts.tokens[g, k][batch.texts.mask[g, k]]
        np.testing.assert_array_equal(found, ROWS[r].tokens)
    assert batch.texts.index.tolist() == [[0, 1], [2, 3]]
    np.testing.assert_array_equal(batch.preferences, preferences.astype(np.float32))
    assert batch.margins.shape == (2, 2, 2) and not batch.margins.any()
    given = comparison_batch(
        [ROWS[:2]], preferences[:1], pad_id=PAD, margins=preferences[1:], index=np.array([[8, 4]])
    )
    assert given.texts.index.tolist() == [[8, 4]]
    np.testing.assert_array_equal(given.margins, preferences[1:])
    with pytest.raises(UserError, match="do not fit"):
        comparison_batch([ROWS], preferences[:1], pad_id=PAD)


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


def test_mismatched_rows_have_the_response_to_another_prompt():
    # prompts 1 1 1 2 2 3: by prompt the rows are 0..5, responses move on by 3
    rows = [token_row(([p], False), ([10 + i, 9], True)) for i, p in enumerate([1, 1, 1, 2, 2, 3])]
    mixed = mismatched_rows(rows, max_length=3)
    assert [row.tokens.tolist() for row in mixed] == [
        *([1, 13, 9], [1, 14, 9], [1, 15, 9]),
        *([2, 10, 9], [2, 11, 9], [3, 12, 9]),
    ]
    assert all(row.is_response.tolist() == [False, True, True] for row in mixed)
    assert [len(row) for row in mismatched_rows(rows, max_length=2)] == [2] * 6
    one_prompt = mismatched_rows(rows[:3], max_length=3)
    assert [row.tokens[1] for row in one_prompt] == [12, 10, 11]
    with pytest.raises(UserError, match="one row has no other"):
        mismatched_rows(rows[:1], max_length=3)
