"""Texts packed by their prompts: every text is whole, a prompt of several stands there once."""

import numpy as np
import pytest

from jaxalign.data.chat import token_row
from jaxalign.data.prompt_groups import MOST, grouped_batch, prompt_groups, single_texts


def row(prompt, response):
    return token_row((prompt, False), (response, True))


ROWS = [row([1, 2, 3], [4, 5]), row([9], [8]), row([1, 2, 3], [6]), row([1, 2], [3, 4])]


def test_texts_with_one_prompt_share_all_of_it_but_its_last_token():
    groups = prompt_groups(ROWS)
    assert [group.texts for group in groups] == [(0, 2), (1,), (3,)]
    assert [group.size for group in groups] == [2 + 3 + 2, 2, 4]
    batch, places = grouped_batch(ROWS, [groups[:2], groups[2:]], pad_id=0, length=10)
    np.testing.assert_array_equal(batch.tokens[0], [1, 2, 3, 4, 5, 3, 6, 9, 8, 0])
    np.testing.assert_array_equal(batch.segments[0], [0] * 7 + [1] * 3)
    assert batch.branches is not None
    np.testing.assert_array_equal(batch.branches[0], [0, 0, 1, 1, 1, 2, 2, 1, 1, 1])
    np.testing.assert_array_equal(batch.response_mask[0], [0, 0, 0, 1, 1, 0, 1, 0, 1, 0])
    assert batch.index.shape == (2, 1)
    assert places[2][0] == 0 and list(places[2][1]) == [0, 1, 5, 6]


def test_every_text_stands_in_its_columns():
    rng = np.random.default_rng(0)
    prompts = [rng.integers(0, 3, rng.integers(0, 4)) for _ in range(4)]
    rows = [
        row(prompts[rng.integers(4)], rng.integers(3, 9, rng.integers(0, 6))) for _ in range(60)
    ]
    rows = [each for each in rows if len(each)]
    for groups in (prompt_groups(rows), single_texts(rows)):
        assert sorted(i for group in groups for i in group.texts) == list(range(len(rows)))
        packed = [groups[::2], groups[1::2]]
        length = max(sum(group.size for group in part) for part in packed)
        batch, places = grouped_batch(rows, packed, pad_id=0, length=length)
        assert batch.branches is not None
        assert int(batch.mask.sum()) == sum(group.size for group in groups)
        for i, (number, columns) in places.items():
            np.testing.assert_array_equal(batch.tokens[number, columns], rows[i].tokens)
            is_response = batch.response_mask[number, columns]
            np.testing.assert_array_equal(is_response, rows[i].is_response)
            assert batch.mask[number, columns].all()
            assert len(set(batch.segments[number, columns])) == 1
            assert len(set(batch.branches[number, columns]) - {0}) == 1


@pytest.mark.parametrize("prompt", [[], [5]])
def test_a_prompt_of_one_token_or_none_has_nothing_to_share(prompt):
    groups = prompt_groups([row(prompt, [1, 2]), row(prompt, [3])])
    assert [(group.texts, group.size) for group in groups] == [
        ((0,), len(prompt) + 2),
        ((1,), len(prompt) + 1),
    ]


def test_texts_that_are_all_prompt_share_it_too():
    (group,) = prompt_groups([row([1, 2, 3], []), row([1, 2, 3], [4])])
    assert group.size == 2 + 1 + 2


def test_a_group_of_many_texts_is_cut():
    rows = [row([1, 2, 3, 4], [5, i]) for i in range(100)]
    groups = prompt_groups(rows)
    assert max(group.size for group in groups) <= MOST * 6
    assert [i for group in groups for i in group.texts] == list(range(100))
    assert len(groups) == 15  # of 7 texts: 3 + 7 * 3 = 24 tokens
