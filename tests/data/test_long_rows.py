"""Rows of too many tokens: what is cut of prompts, answers, pairs, rankings and steps."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxalign.config.data import DataConfig
from jaxalign.data.chat import prompt_ids, prompt_of
from jaxalign.data.formats import load_records
from jaxalign.data.long_rows import cut_record, without_far_ends
from jaxalign.data.records import (
    Preference,
    Prompt,
    PromptCompletion,
    PromptRow,
    Ranking,
    Stepwise,
)
from jaxalign.data.row_fields import BadRow
from jaxalign.data.tokenizer_training import train_bpe
from jaxalign.errors import UserError
from jaxalign.recipes.user_data import read_rows

PLAIN = train_bpe(["the film is good"], 270)
TEMPLATE = (
    "{% for message in messages %}[{{ message['role'] }}]{{ message['content'] }};"
    "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)
CHAT = dataclasses.replace(PLAIN, chat_template=TEMPLATE)
WORDS = st.lists(st.sampled_from(["why", "how", "who", "film", "good"]), min_size=1, max_size=30)
TEXTS = WORDS.map(" ".join)


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


SYSTEM = {"role": "system", "content": "Be brief"}


@settings(max_examples=60, deadline=None)
@given(TEXTS, TEXTS, TEXTS, st.integers(8, 60), st.booleans())
def test_a_cut_pair_keeps_one_prompt_and_the_start_of_both_answers(q, a, b, limit, chat):
    """Whatever the lengths: prompts lose their beginning and answers their end, as said."""
    tokenizer, room = (CHAT, 30) if chat else (PLAIN, 0)
    limit += 2 * room  # for what the template writes
    pair = Preference(q, f" {a}", f" x{b}")
    if chat:
        pair = Preference([user(q)], [assistant(a)], [assistant(f"x{b}")])
    whole = pair.token_rows(tokenizer)
    if max(map(len, whole)) <= limit:
        return
    record, rows = cut_record(pair, tokenizer, limit)
    assert max(map(len, rows)) <= limit
    prompts = [prompt_of(row) for row in rows]
    np.testing.assert_array_equal(*prompts)
    assert prompts[0].tolist() == prompt_ids(record.prompt, tokenizer)
    texts = [text[-1]["content"] if chat else text for text in (pair.prompt, record.prompt)]
    assert texts[0].endswith(texts[1]) and texts[1].split()[0] in texts[0].split()
    longest = 0
    for before, after in zip(whole, rows, strict=True):
        answers = [row.tokens[len(prompt_of(row)) :].tolist() for row in (before, after)]
        assert answers[0][: len(answers[1])] == answers[1] and answers[1]
        longest = max(longest, len(answers[0]))
        if len(answers[1]) < len(answers[0]):  # it was cut: the prompt has no more than its half
            assert len(after) == limit and len(prompts[0]) <= max(limit // 2, 1)
    if len(prompt_of(whole[0])) <= max(limit - longest, limit // 2):
        assert record.prompt == pair.prompt  # it was no longer than it may be


@pytest.mark.parametrize("tokenizer", [PLAIN, CHAT], ids=["plain", "template"])
def test_a_conversation_loses_its_oldest_turns_and_keeps_its_system_message(tokenizer):
    turns = [part for i in range(9) for part in (user(f"question {i}"), assistant(f"answer {i}"))]
    messages = [SYSTEM, *turns, user("and now?")]
    record = PromptCompletion(messages, [assistant("so")])
    cut, (row,) = cut_record(record, tokenizer, 130)
    kept = len(cut.prompt) - 2
    assert 0 < kept < len(turns) and kept % 2 == 0
    assert cut.prompt == [SYSTEM, *turns[len(turns) - kept :], user("and now?")]
    more = PromptCompletion(
        [SYSTEM, *turns[len(turns) - kept - 2 :], user("and now?")], cut.completion
    )
    assert len(row) <= 130 < len(more.token_rows(tokenizer)[0])  # one turn more is too long
    assert row == cut.token_rows(tokenizer)[0]  # the answer is whole, its end too
    assert row.tokens[-1] == tokenizer.eos_id


def test_the_end_of_a_text_goes_and_its_eos_with_it():
    record = PromptCompletion("", "the film is good " * 20)
    whole = record.token_rows(PLAIN)[0]
    same, (row,) = cut_record(record, PLAIN, 20)
    assert same == record and row.tokens.tolist() == whole.tokens[:20].tolist()
    assert PLAIN.eos_id not in row.tokens[1:]


def test_prompts_of_policies_fit_and_keep_their_columns():
    record = PromptRow("why " * 50, {"answer": 3})
    cut, (row,) = cut_record(record, PLAIN, 16)
    assert len(row) <= 16 and cut.columns == {"answer": 3} and cut.prompt.startswith("why")
    assert row.tokens.tolist() == prompt_ids(cut.prompt, PLAIN)


def test_rankings_keep_one_prompt_and_steps_stay_whole_with_their_labels():
    ranking = Ranking("why " * 30, [" so " * 9, " no", " yes " * 40])
    _, rows = cut_record(ranking, PLAIN, 40)
    prompts = {tuple(prompt_of(row)) for row in rows}
    assert len(prompts) == 1 and max(map(len, rows)) == 40
    steps = Stepwise("why", [f"step {i}" for i in range(9)], [i % 2 for i in range(9)])
    limit = len(Stepwise("why", steps.completions[:4], [0] * 4).token_rows(PLAIN)[0]) + 1
    record, (row,) = cut_record(steps, PLAIN, limit)
    assert record == Stepwise("why", steps.completions[:4], [0, 1, 0, 1])
    assert row.is_response.sum() == 4
    with pytest.raises(BadRow, match="the first step alone"):
        cut_record(Stepwise("why", ["step " * 40], [1]), PLAIN, 12)


def test_what_may_not_be_cut_is_said():
    system = {"role": "system", "content": "be brief " * 40}
    with pytest.raises(BadRow, match="too long by itself"):
        cut_record(PromptCompletion([system, user("why")], [assistant("so")]), CHAT, 40)


@pytest.mark.parametrize(
    ("record", "wanted"),
    [
        (PromptCompletion("x" * 90 + "é", "é" + "y" * 90), ("x" * 18 + "é", "é" + "y" * 18)),
        (
            PromptCompletion([SYSTEM, user("x" * 30), assistant("a"), user("q")],
                             [assistant("b" * 15), user("c"), assistant("d" * 15)]),
            ([SYSTEM, user("q")], [assistant("b" * 15)]),
        ),
        (
            PromptCompletion([user("q")], [assistant("b" * 90)]),
            ([user("q")], [assistant("b" * 20)]),
        ),
    ],
)  # fmt: skip
def test_fields_of_many_bytes_are_cut_before_they_are_tokenised(record, wanted):
    cut = without_far_ends(record, 20)
    assert (cut.prompt, cut.completion) == wanted


ROWS = [{"prompt": "why", "completion": " so " * n} for n in (1, 2, 30, 60)]


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return str(path)


def test_rows_are_cut_or_left_out_and_counted(source, capsys):
    lengths = [len(load_records(source, PromptCompletion, tokenizer=PLAIN).tokens[i][0])
               for i in range(4)]  # fmt: skip
    for choice, sizes, what in (
        ("truncate", [*lengths[:2], 32, 32], "cut"),
        ("skip", lengths[:2], "left out"),
    ):
        data = DataConfig(path=source, max_length=32, on_long_row=choice)
        rows = read_rows(data, PromptCompletion, tokenizer=PLAIN, log=None)
        assert [len(row) for row in rows.texts] == sizes and len(rows.records) == len(sizes)
        line = f"rows.jsonl: 2 of 4 rows {what} for more than --max_length 32 tokens, the longest "
        assert f"{line}{lengths[-1]}\n" in capsys.readouterr().err


def test_rows_that_stop_a_run_are_named_with_the_flags_that_help(source, tmp_path):
    message = (
        r"2 of 4 rows have more than 32 tokens, the longest \d+; give a larger --max_length, or "
        r"--data\.on_long_row truncate or skip\n  .*more\.jsonl:3: \d+ tokens, the limit is 32"
    )
    for bad in ({}, {"promt": "why"}):
        path = tmp_path / "more.jsonl"
        path.write_text(Path(source).read_text() + (json.dumps(bad) + "\n") * bool(bad))
        if bad:
            message = r"1 of 5 rows are bad; .*on_bad_row skip; 2 of 5 rows have"
        with pytest.raises(UserError, match=message):
            load_records(path, PromptCompletion, tokenizer=PLAIN, max_length=32)
    loaded = load_records(
        path, PromptCompletion, tokenizer=PLAIN, max_length=32, on_bad_row="skip"
    )  # as before there was a choice for long ones
    assert len(loaded.records) == 2 and len(loaded.skipped) == 3
    with pytest.raises(UserError, match="1 of 5 rows are bad"):
        load_records(path, PromptCompletion, tokenizer=PLAIN, max_length=32, on_long_row="skip")


def test_huge_rows_are_cut_without_being_tokenised(tmp_path):
    path = tmp_path / "huge.jsonl"
    path.write_text(json.dumps({"text": "good " * 200_000}) + "\n")
    given = {"tokenizer": PLAIN, "max_length": 16, "on_long_row": "truncate"}
    loaded = load_records(path, PromptCompletion, **given)
    assert len(loaded.tokens[0][0]) == 16 and loaded.cut[0] > 1000
    with pytest.raises(UserError, match="completion has 1,000,000 bytes"):
        load_records(path, PromptCompletion, tokenizer=PLAIN, max_length=16)
    assert load_records(path, Prompt, fields={"prompt": "text"}, **given).tokens
