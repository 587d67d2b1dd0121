"""The rows that are held out: whole prompts, the same ones whatever the order of the rows."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxalign.config.data import DataConfig
from jaxalign.data.held_out import held_out_rows
from jaxalign.data.records import GoldPreference, Preference, PromptCompletion
from jaxalign.data.tokenizer_training import train_bpe
from jaxalign.errors import UserError
from jaxalign.recipes.user_data import read_split, read_texts

TOKENIZER = train_bpe(["the film is good"], 270)


def demonstrations(prompts) -> list[PromptCompletion]:
    return [PromptCompletion(f"q{n}", f" a{i}") for i, n in enumerate(prompts)]


@given(
    st.lists(st.integers(0, 8), min_size=2, max_size=40).filter(lambda x: len(set(x)) > 1),
    st.floats(0.2, 0.8),
    st.integers(0, 2**32 - 1),
    st.randoms(use_true_random=False),
)
def test_all_rows_of_a_prompt_are_on_one_side_in_any_order(prompts, share, seed, random):
    rows = demonstrations(prompts)
    try:
        apart = held_out_rows(rows, share=share, seed=seed)
    except UserError as error:
        assert "leaves none for" in str(error)
        return
    assert apart.any() and not apart.all()
    sides = [
        {row.prompt for row, away in zip(rows, apart, strict=True) if away == side}
        for side in (0, 1)
    ]
    assert not sides[0] & sides[1]
    order = list(range(len(rows)))
    random.shuffle(order)
    again = held_out_rows([rows[i] for i in order], share=share, seed=seed)
    np.testing.assert_array_equal(again, apart[order])


def test_the_share_is_that_of_the_rows_and_the_seed_draws_them():
    rows = demonstrations(range(400))
    drawn = [held_out_rows(rows, share=0.1, seed=seed) for seed in (0, 1)]
    assert [part.sum() for part in drawn] == [40, 40]
    assert (drawn[0] & drawn[1]).sum() < 15  # 4 are expected of two independent draws
    larger = held_out_rows(rows, share=0.2, seed=0)
    assert (larger & drawn[0]).sum() == 40  # a larger share adds prompts


def test_rows_without_a_question_stand_for_themselves():
    system = [{"role": "system", "content": "Be brief."}]
    for prompt in ("", system):
        rows = [PromptCompletion(prompt, [{"role": "assistant", "content": str(i)}]) for i in "ab"]
        assert held_out_rows(rows, share=0.5, seed=0).sum() == 1
        twice = [rows[0], rows[1], rows[0]]
        first, _, third = held_out_rows(twice, share=0.5, seed=0)
        assert first == third


@pytest.mark.parametrize(
    ("prompts", "share", "side"), [("aaaa", 0.5, "evaluation"), ("abcd", 0.99, "training")]
)
def test_a_side_without_rows_is_refused(prompts, share, side):
    with pytest.raises(UserError, match=rf"evaluation_share {share} of 4 rows .* none for {side}"):
        held_out_rows(demonstrations(prompts), share=share, seed=0)


def source_of(folder, **data) -> DataConfig:
    rows = [{"prompt": f"q{i}", "chosen": " yes", "rejected": " no"} for i in range(10)]
    for name, extra in (("train", {"gold": " so"}), ("test", {})):
        text = "".join(json.dumps(row | extra) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text)
    return DataConfig(path=str(folder / "train.jsonl"), max_length=64, **data)


def test_rows_are_split_by_share_or_by_file_or_not_at_all(tmp_path):
    """And what a tokenizer is trained on is what training reads."""
    reading = {"tokenizer": TOKENIZER, "log": None, "seed": 0}
    data = source_of(tmp_path, evaluation_share=0.3)
    training, held_out = read_split(data, Preference, **reading)
    assert (len(training), len(held_out)) == (7, 3)
    assert read_texts(data, Preference, seed=0) == training.records
    assert training.tokens == [record.token_rows(TOKENIZER) for record in training.records]
    prompts = {record.prompt for record in [*training.records, *held_out.records]}
    assert prompts == {f"q{i}" for i in range(10)}
    data = source_of(tmp_path, evaluation_path=str(tmp_path / "test.jsonl"))
    assert [len(rows) for rows in read_split(data, Preference, **reading)] == [10, 10]
    with pytest.raises(UserError, match="gold"):  # a loss on gold responses is taken there too
        read_split(data, GoldPreference, **reading)
    assert [len(rows) for rows in read_split(source_of(tmp_path), Preference, **reading)] == [10, 0]


def test_a_share_and_a_file_are_not_given_together():
    with pytest.raises(UserError, match=r"evaluation_path x and --data\.evaluation_share 0\.1"):
        DataConfig(evaluation_path="x", evaluation_share=0.1)
    with pytest.raises(UserError, match=r"must lie in \(0, 1\)"):
        DataConfig(evaluation_share=1.0)
