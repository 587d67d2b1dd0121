"""Run directories: names that are refused, one process at a time, the date, what it depends on."""

import dataclasses
import datetime
import json
import os
from pathlib import Path

import numpy as np
import pytest

from jaxalign.cli import main
from jaxalign.config.place import PlaceConfig
from jaxalign.config.sft import SFTConfig
from jaxalign.data.records import Preference, PromptRow
from jaxalign.data.templates import fixed_template_date, template_date
from jaxalign.data.tokenizer_training import train_bpe
from jaxalign.errors import UserError
from jaxalign.recipes.inputs import (
    check_same,
    inputs_of,
    judge_digest,
    rows_digest,
    tokenizer_digests,
)
from jaxalign.recipes.run import open_run
from jaxalign.recipes.run_directory import LOCK, directory_of, locked_directory


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("", "is no directory"),
        ("--seed", "'--seed' is no directory"),
        ("gs://bucket/run", "gs://bucket/run is an address"),
        ("s3:/bucket", "is an address"),
        ("file:///tmp/x", "is an address"),
        ("x/" * 2000, "is too long"),
        ("a\udcff", "is not UTF-8"),
        ("a\0b", r"a\\x00b: a directory's name has no zero character"),
        ("~nobody-has-this-name/x", "home directory"),
    ],
)
def test_names_that_are_refused(given, words):
    with pytest.raises(UserError, match=words):
        directory_of(given)


def test_names_that_are_taken_as_they_are(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert directory_of("~/runs") == Path("/home/me/runs")
    for name in ("-x", "a[1]", "runs/../b", "$X", "a\nb", "seed=1", "/a/b/", "c:d"):
        assert directory_of(name) == Path(name)


def test_one_process_at_a_time(tmp_path):
    directory = tmp_path / "new" / "run"
    with locked_directory(directory):
        (directory / "written").touch()
        for same in (directory, tmp_path / "new" / ".." / "new" / "run"):
            with pytest.raises(
                UserError, match=f"run is in use by process {os.getpid()} on .*; wait"
            ):
                locked_directory(same).__enter__()
    assert [path.name for path in directory.iterdir()] == ["written"]
    (directory / LOCK).write_text("999 of a process that was killed")
    with locked_directory(directory):
        assert str(os.getpid()) in (directory / LOCK).read_text()


def test_nothing_stays_of_a_run_that_wrote_nothing(tmp_path):
    with locked_directory(tmp_path / "a" / "b"):
        pass
    assert list(tmp_path.iterdir()) == []
    with locked_directory(tmp_path):
        pass
    assert tmp_path.is_dir()


def test_directories_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / LOCK).symlink_to(tmp_path / "file")
    for directory, words in (
        (tmp_path / "file", "is a file"),
        (tmp_path / "file" / "x", "cannot be made"),
        (tmp_path, "could not be written"),  # a lock that is a link is not followed
    ):
        with pytest.raises(UserError, match=words):
            locked_directory(directory).__enter__()
    assert (tmp_path / "file").read_text() == ""


@pytest.mark.slow
def test_a_resumed_run_keeps_the_date_of_its_start(tmp_path):
    now = template_date()
    begun = datetime.datetime(2024, 2, 29, 23, 59)
    with fixed_template_date(begun), open_run(tmp_path, SFTConfig(), PlaceConfig(), 0, inputs={}):
        pass
    with locked_directory(tmp_path):
        assert template_date() == begun
    assert template_date() == now


ROWS = [Preference("a", "b", "c"), Preference("a", "d", "e"), Preference("f", "g", "h")]


def test_rows_are_told_apart_by_content_and_order():
    found = [
        rows_digest(rows)["sha256"]
        for rows in (
            ROWS,
            ROWS[::-1],
            ROWS[:2],
            [*ROWS, ROWS[0]],
            [*ROWS[:2], dataclasses.replace(ROWS[2], rejected="h ")],
            [*ROWS[:2], Preference("f", "h", "g")],
            [PromptRow("a", {"n": np.arange(3)})],
            [PromptRow("a", {"n": np.arange(4)})],
            [[1, 23]],
            [[12, 3]],
            [[1], [23]],
        )
    ]
    assert len(set(found)) == len(found)
    assert rows_digest(ROWS) == rows_digest([dataclasses.replace(row) for row in ROWS])


@pytest.mark.slow
def test_what_changed_is_named(tmp_path, capsys):
    file = tmp_path / "judge.py"
    file.write_text("def reward(responses): ...")
    began = {"policy": {"sha256": "1"}, "data.path": rows_digest(ROWS)}
    began |= {"reward 1": {"weight": 1.0, **judge_digest(str(file), print)}}
    check_same(began, dict(reversed(began.items())), tmp_path)
    for change, words in [
        ({"policy": {"sha256": "2"}}, r"another policy than this one \(its content"),
        ({"data.path": rows_digest(ROWS[::-1])}, "rows of data.path in another order"),
        ({"data.path": rows_digest(ROWS[1:])}, "3 rows in data.path, this one has 2"),
        ({"data.path": rows_digest([*ROWS[1:], ROWS[1]])}, r"other rows in data.path .*3 each"),
        ({"adapter": {"sha256": "3"}}, "no adapter, this one has one"),
        ({"reward 1": began["reward 1"] | {"weight": 2.0}}, "reward 1 of weight 1.0, .* has 2.0"),
        ({"reward 1": began["reward 1"] | {"function": "b"}}, "of function reward, .* has b"),
        ({"reward 1": {"weight": 1.0, "sha256": "4"}}, "of function reward, this one has None"),
    ]:
        with pytest.raises(UserError, match=f"holds a run with .*{words}.* another --output$"):
            check_same(began, began | change, tmp_path)
    with pytest.raises(UserError, match="holds a run with policy, this one has none"):
        check_same(began, {k: v for k, v in began.items() if k != "policy"}, tmp_path)
    assert capsys.readouterr().out == ""
    file.write_text("def reward(responses): return mended(responses)")
    mended = {"reward 1": {"weight": 1.0, **judge_digest(str(file), print)}}
    check_same(began, began | mended, tmp_path)
    assert "reward 1: the function's file has changed" in capsys.readouterr().out


def saved(directory: Path) -> None:
    """As if a state had been saved there."""
    (directory / "checkpoints" / "sft" / "3").mkdir(parents=True)


def opened(directory: Path, config: SFTConfig, rows=ROWS):
    inputs = inputs_of(models={}, data=rows)
    with open_run(directory, config, PlaceConfig(), 0, inputs=inputs) as run:
        return run.name


@pytest.mark.slow
def test_a_run_goes_on_as_it_began_from_wherever_the_same_files_are(tmp_path):
    config = SFTConfig(data=dataclasses.replace(SFTConfig().data, path="rows.jsonl"))
    elsewhere = SFTConfig(data=dataclasses.replace(config.data, path="/moved/rows.parquet"))
    first = opened(tmp_path, config)
    assert opened(tmp_path, dataclasses.replace(config, seed=1), ROWS[:1]) != first
    first = opened(tmp_path, config)  # nothing was saved: it begins again, as often as one likes
    saved(tmp_path)
    assert opened(tmp_path, config) == opened(tmp_path, elsewhere) == first
    with pytest.raises(UserError, match="holds a run with seed = 0, this one has 1, and that"):
        opened(tmp_path, dataclasses.replace(config, seed=1))
    with pytest.raises(UserError, match=r"rows of data\.path in another order"):
        opened(tmp_path, config, ROWS[::-1])
    assert opened(tmp_path, config) == first
    kept = json.loads((tmp_path / "config.json").read_text())
    for changed in ({"policy": "x"}, {"init": 3}):  # a field of another command; no text
        (tmp_path / "config.json").write_text(json.dumps(kept | changed))
        with pytest.raises(UserError, match=rf"holds a run with {next(iter(changed))} = "):
            opened(tmp_path, config)
    (tmp_path / "inputs.json").unlink()
    with pytest.raises(UserError, match=r"holds config\.json and no inputs\.json, so"):
        opened(tmp_path, config)


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "report.html", "model/x"])
def test_what_no_run_has_written_is_not_overwritten(tmp_path, name):
    """The folder of a published model, given as run directory, keeps its configuration."""
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("{}")
    with pytest.raises(UserError, match=f"holds {name.split('/')[0]} and no inputs.json, so"):
        opened(tmp_path, SFTConfig())
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [tmp_path / name]
    assert (tmp_path / name).read_text() == "{}"


@pytest.mark.parametrize("name", ["config.json", "inputs.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", '{"inputs": 3}', "\xff"])
def test_broken_files_of_a_run_are_one_line(tmp_path, name, content):
    opened(tmp_path, SFTConfig())
    saved(tmp_path)
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=r"^[^\n]+$"):
        opened(tmp_path, SFTConfig())


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UserError("no"), 2, "jaxalign: no\n"),
        (
            OSError(28, "No space left on device", "/a"),
            2,
            "jaxalign: /a: No space left on device; ",
        ),
        (PermissionError(13, "Permission denied"), 2, "jaxalign: Permission denied; give a place"),
        (BrokenPipeError(32, "Broken pipe"), 141, ""),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_every_error_of_the_system_is_one_line(monkeypatch, capsys, error, status, line):
    def fails(arguments):
        raise error

    monkeypatch.setattr("jaxalign.cli.dispatch", fails)
    with pytest.raises(SystemExit) as ended:
        main(["sft"])
    assert ended.value.code == status
    said = capsys.readouterr().err
    assert said.startswith(line) and said.count("\n") == bool(line)


def test_an_address_is_no_run_directory(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["sft", "--output", "gs://bucket/run", "--data.path", "rows.jsonl"])
    assert "gs://bucket/run is an address" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["sft", "--output", "new", "--data.path", "rows.jsonl"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_what_ends_a_response_is_part_of_a_run():
    tokenizer = train_bpe(["the film is good"], 270)
    found = tokenizer_digests(tokenizer)
    assert tokenizer_digests(dataclasses.replace(tokenizer, also_stop=(tokenizer.eos_id,))) == found
    other = tokenizer_digests(dataclasses.replace(tokenizer, also_stop=(7,)))
    assert {name for name in found if found[name] != other[name]} == {"tokenizer"}
