"""What is kept, shown and measured of sampled responses, by hand."""

import dataclasses
import io
import json
import math
import re

import numpy as np
from rich.console import Console

from jaxalign.batches.tokens import TokenBatch
from jaxalign.config.records import RecordFields
from jaxalign.data.records import PromptRow
from jaxalign.data.tokenizer_training import train_bpe
from jaxalign.recipes import sample_records as records_module
from jaxalign.recipes.prompts import Prompts
from jaxalign.recipes.reward_sources import RewardSource, judges_of
from jaxalign.recipes.sample_metrics import EqualGroups, mean_advantages, response_metrics
from jaxalign.recipes.sample_records import Drawn, sample_lines, sample_records, sample_table
from jaxalign.train.lines import LinesWriter, read_lines

TOKENIZER = train_bpe(["the film is good"], 270)
END = TOKENIZER.stop_ids[0]
CHAT = [{"role": "user", "content": "so?\n[bold]why"}]
NAN = float("nan")


def rows_of(*responses):
    """Rows of two columns of prompt and four of response; `ended` ones have their end."""
    tokens = np.zeros((len(responses), 6), np.int32)
    mask = np.zeros(tokens.shape, bool)
    tokens[:, 1], prompt_mask = TOKENIZER.encode("a")[0], np.zeros(tokens.shape, bool)
    prompt_mask[:, 1] = True
    for i, ids in enumerate(responses):
        tokens[i, 2 : 2 + len(ids)], mask[i, 2 : 2 + len(ids)] = ids, True
    return TokenBatch(
        tokens=tokens, prompt_mask=prompt_mask, response_mask=mask, index=np.arange(len(tokens))
    )


def letters(text):
    return list(TOKENIZER.encode(text))


ROWS = rows_of([*letters("b"), END], letters("xyzx"), [END])


def judges():
    sources = (
        RewardSource(judge=lambda responses: [1.0, None, 0.25], name="first"),
        RewardSource(judge=lambda responses: [2.0, 4.0, 6.0], name="second", weight=0.5),
    )
    prompts = Prompts(ids=[[1], [1]], records=[PromptRow("a"), PromptRow(CHAT)])
    return judges_of(sources, TOKENIZER, prompts)


def drawn(step=1):
    index, judging = np.array([0, 0, 1]), judges()
    judged = judging(ROWS, np.zeros((3, 2)), index)
    advantages = np.array([0.5, NAN, -1.5])
    return judging, Drawn(step=step, rows=ROWS, index=index, judged=judged, advantages=advantages)


def test_a_line_a_response():
    judging, samples = drawn(step=7)
    first, second, third = sample_lines("grpo", judging, samples)
    assert first == {
        "stage": "grpo",
        "step": 7,
        "prompt_index": 0,
        "prompt": "a",
        "response": "b",
        "scores": {"first": 1.0, "second": 2.0},
        "score": 2.0,
        "advantage": 0.5,
        "ended": True,
        "length": 2,
    }
    assert second["scores"] == {"first": None, "second": 4.0} and second["score"] is None
    assert second["advantage"] is None and not second["ended"] and second["length"] == 4
    assert third["prompt"] == CHAT and third["response"] == "" and third["score"] == 3.25
    json.dumps([first, second, third], allow_nan=False)


def test_texts_are_those_that_the_judges_read():
    """Where a model alone judges they are made for the record."""
    judging, samples = drawn()
    without = dataclasses.replace(samples, judged=samples.judged._replace(texts=None))
    assert list(sample_lines("a", judging, without)) == list(sample_lines("a", judging, samples))


def shown(table) -> str:
    console = Console(file=io.StringIO(), width=100)
    console.print(table)
    return console.file.getvalue()


def test_the_table_has_best_middle_and_worst():
    judging, samples = drawn()
    lines = list(sample_lines("grpo", judging, samples))
    text = shown(sample_table("grpo", lines)).splitlines()
    assert "grpo, iteration 1: 2 of 3 responses" in text[0]  # one has no score
    assert text[2].split() == ["3.25", "0.25", "6", "-1.5", "1", "so?", "[bold]why", "|"]
    assert text[3].split() == ["2", "1", "2", "0.5", "2", "a", "|", "b"]
    many = [lines[0] | {"score": float(i), "response": "\x1b[2J\nx" * 99} for i in range(9)]
    text = shown(sample_table("grpo", many))
    assert "3 of 9 responses" in text and "\x1b" not in text and "\\x1b[2J x" in text
    assert re.findall(r"^ {4}(\d) {2}", text, re.MULTILINE) == ["8", "4", "0"]
    unjudged = [line | {"score": None} for line in lines]
    assert "no response has a score" in shown(sample_table("grpo", unjudged))


class FakeRun:
    """A run that has nothing but its samples."""

    def __init__(self, folder):
        self.samples = LinesWriter(folder / "samples.jsonl")


def kept(folder, monkeypatch, *, steps, responses=3, **settings):
    """Iterations of which samples were kept, and of which a table was shown."""
    tables = []
    monkeypatch.setattr(records_module, "show", lambda table, width: tables.append(table.title))
    run = FakeRun(folder)
    sizes = {"steps": steps, "responses": responses}
    records = sample_records(run, "grpo", judges(), RecordFields(**settings), **sizes)
    for step in range(1, steps + 1):
        records(drawn(step)[1])
    run.samples.close()
    written = [line["step"] for line in read_lines(run.samples.path)]
    return written[::3], [int(title.split()[2].rstrip(":")) for title in tables]


def test_all_iterations_are_kept_and_every_fifth_part_shown(tmp_path, monkeypatch):
    written, tables = kept(tmp_path, monkeypatch, steps=12)
    assert written == list(range(1, 13)) and tables == [1, 3, 6, 9, 12]


def test_long_runs_keep_at_most_50_000_responses(tmp_path, monkeypatch):
    written, _ = kept(tmp_path, monkeypatch, steps=7, responses=20_000)
    assert written == [1, 5]


def test_the_user_says_how_often(tmp_path, monkeypatch):
    assert kept(tmp_path, monkeypatch, steps=5, samples_every=2, show_every=4) == (
        [1, 3, 5],
        [1, 4],
    )
    (tmp_path / "none").mkdir()
    assert kept(tmp_path / "none", monkeypatch, steps=5, samples_every=0, show_every=0) == ([], [])
    assert not (tmp_path / "none" / "samples.jsonl").exists()


def test_lengths_of_all_and_of_those_that_ended():
    expected = {
        "response/length_min": 1.0,
        "response/length_max": 4.0,
        "response/length_ended": 1.5,
        "response/length_ended_max": 2.0,
        "tokens": 3 + 2 + 4 + 1,
    }
    assert response_metrics(ROWS, TOKENIZER.stop_ids) == expected
    none = response_metrics(rows_of(letters("xyzx")), TOKENIZER.stop_ids)
    assert set(none) == {"response/length_min", "response/length_max", "tokens"}


def test_advantages_of_tokens_are_averaged_over_what_is_learned_from():
    mask = np.array([[1, 1, 0], [0, 0, 0]], bool)
    tokens = np.array([[1.0, 2.0, 9.0], [5.0, 5.0, 5.0]])
    assert str(mean_advantages(tokens, mask).tolist()) == "[1.5, nan]"
    assert str(mean_advantages(np.array([[0.5], [3.0]]), mask).tolist()) == "[0.5, nan]"


def test_equal_groups_are_warned_of_once_and_only_in_a_row(capsys):
    watch = EqualGroups("grpo")
    for share in [0.9] * 4 + [0.8] + [0.9] * 4 + [math.nan]:
        watch(share)
    assert capsys.readouterr().err == ""
    for share in [0.95] * 5 + [0.1] + [1.0] * 20:
        watch(share)
    told = capsys.readouterr().err
    assert told.count("grpo: ") == 1 and "95% of the groups" in told and "group_size" in told
