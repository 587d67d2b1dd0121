"""Batches hold what went in, whatever the padding."""

import numpy as np
import pytest

from jaxalign.data.batching import prompt_batch, token_batch, truncated_row
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
