"""Batches of preferences hold the rows of every side and group, in order."""

import numpy as np
import pytest

from jaxalign.data.chat import token_row
from jaxalign.data.preference_batches import comparison_batch, mismatched_rows, preference_batch
from jaxalign.errors import UserError

PAD = 9
ROWS = [
    token_row((prompt, False), (response, True))
    for prompt, response in (([1, 5], [6, 2]), ([1], [7]), ([1, 5, 5], []))
]


def test_both_sides_of_a_pair_have_one_length():
    batch = preference_batch(ROWS[1:2], ROWS[:1], pad_id=PAD, index=[3])
    assert batch.chosen.tokens.tolist() == [[1, 7, PAD, PAD]]
    assert batch.rejected.tokens.tolist() == [[1, 5, 6, 2]]
    assert batch.chosen.index.tolist() == batch.rejected.index.tolist() == [3]
    assert batch.reference is None and batch.weights.tolist() == [1.0]
    assert batch.weights.dtype == np.float32
    with pytest.raises(UserError, match="does not fit"):
        preference_batch(ROWS[1:2], ROWS[:1], pad_id=PAD, length=2)


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
