"""Files of JSON lines that a run appends to: made when needed, cut where a run goes on."""

import json

import pytest

from jaxalign.errors import UserError
from jaxalign.train.lines import LinesWriter, read_lines


def line(stage, step):
    return {"stage": stage, "step": step, "text": "a\nb \u2028 \u00e9"}


def test_the_file_is_made_with_its_first_line(tmp_path):
    path = tmp_path / "samples.jsonl"
    writer = LinesWriter(path)
    writer.resume("ppo", 0)
    writer.close()
    assert not path.exists() and read_lines(path) == []
    writer.write([line("ppo", 1), line("ppo", 1)])
    assert read_lines(path) == [line("ppo", 1)] * 2  # on disk at once
    writer.close()


def test_a_run_that_goes_on_drops_what_comes_again(tmp_path):
    path = tmp_path / "samples.jsonl"
    writer = LinesWriter(path)
    writer.write([line(stage, step) for stage in ("ppo", "grpo") for step in (0, 1, 2)])
    writer.close()
    path.write_text(path.read_text() + json.dumps(line("grpo", 3))[:-4])  # torn by a kill
    writer = LinesWriter(path)
    writer.resume("grpo", 1)
    writer.write([line("grpo", 2)])
    steps = [("ppo", 0), ("ppo", 1), ("ppo", 2), ("grpo", 0), ("grpo", 1), ("grpo", 2)]
    assert [(each["stage"], each["step"]) for each in read_lines(path)] == steps
    writer.resume("ppo", 0)
    assert [each["stage"] for each in read_lines(path)] == ["grpo"] * 3
    writer.close()


def test_a_file_that_was_replaced_is_not_written(tmp_path):
    path = tmp_path / "samples.jsonl"
    writer = LinesWriter(path)
    writer.write([line("ppo", 1)])
    path.rename(tmp_path / "moved")
    path.write_text("")
    with pytest.raises(UserError, match=r"samples.jsonl could not be written: another file"):
        writer.write([line("ppo", 2)])
    writer.close()


@pytest.mark.parametrize("text", ["[]", "{", '{"stage": "a"}', '{"stage": "a", "step": 1.5}'])
def test_a_broken_line_is_named(tmp_path, text):
    path = tmp_path / "samples.jsonl"
    path.write_text(json.dumps(line("a", 1)) + f"\n{text}\n")
    with pytest.raises(UserError, match=r"samples.jsonl:2.*; remove that line"):
        read_lines(path)
