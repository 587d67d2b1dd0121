"""Metrics on disk, after kills and resumptions; TensorBoard."""

import json
import math
import struct

import pytest

from jaxalign.errors import UserError
from jaxalign.train.metrics import MetricsWriter, logged, read_metrics


def steps_of(run_dir) -> list[tuple[str, int]]:
    return [(line["stage"], line["step"]) for line in read_metrics(run_dir)]


def scalars(run_dir, stage: str) -> list[tuple[int, str, float]]:
    """What TensorBoard would read: records of length, check, event, check."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted((run_dir / "tensorboard" / stage).iterdir()):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            event = Event.FromString(content[12 : 12 + length])
            found += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
            content = content[16 + length :]
    return found


def test_lines_and_events(tmp_path):
    writer = MetricsWriter(tmp_path)
    writer.write("sft", 10, {"loss": 0.5, "grad_norm": 2})
    assert read_metrics(tmp_path)[0]["loss"] == 0.5  # on disk at once
    writer.write("dpo", 1, {"loss": 0.25})
    writer.close()
    lines = read_metrics(tmp_path)
    assert list(lines[0]) == ["stage", "step", "time", "loss", "grad_norm"]
    assert steps_of(tmp_path) == [("sft", 10), ("dpo", 1)]
    assert scalars(tmp_path, "sft") == [(10, "loss", 0.5), (10, "grad_norm", 2)]
    assert scalars(tmp_path, "dpo") == [(1, "loss", 0.25)]


def test_a_run_without_metrics(tmp_path):
    assert read_metrics(tmp_path) == []


def write_two_stages(run_dir) -> MetricsWriter:
    writer = MetricsWriter(run_dir)
    for stage in ("sft", "dpo"):
        for step in (0, 5, 10, 15):
            writer.write(stage, step, {"loss": step})
    return writer


def test_resuming_drops_what_comes_again(tmp_path):
    write_two_stages(tmp_path).close()
    writer = MetricsWriter(tmp_path)
    writer.resume("dpo", 10)
    assert steps_of(tmp_path) == [
        *[("sft", step) for step in (0, 5, 10, 15)],
        *[("dpo", step) for step in (0, 5, 10)],
    ]
    writer.write("dpo", 15, {"loss": 1.0})
    assert steps_of(tmp_path)[-1] == ("dpo", 15)
    writer.close()


def test_starting_anew_drops_the_stage(tmp_path):
    writer = write_two_stages(tmp_path)
    writer.resume("dpo", 0)
    assert steps_of(tmp_path) == [("sft", step) for step in (0, 5, 10, 15)]
    writer.close()


def test_a_line_torn_by_a_kill(tmp_path):
    write_two_stages(tmp_path).close()
    path = tmp_path / "metrics.jsonl"
    whole = path.read_text()
    for cut in (1, 2, 20):
        path.write_text(whole[:-cut])
        assert len(read_metrics(tmp_path)) == 7
        writer = MetricsWriter(tmp_path)
        writer.write("dpo", 15, {"loss": 15})
        writer.close()
        assert steps_of(tmp_path)[-2:] == [("dpo", 10), ("dpo", 15)]


def test_a_broken_line_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"stage": "sft", "step": 1}\nrubbish\n{"stage": "sft", "step": 2}\n')
    with pytest.raises(UserError, match=r"metrics.jsonl:2 is not JSON: .*; remove that line$"):
        read_metrics(tmp_path)


def test_every_line_is_json(tmp_path):
    write_two_stages(tmp_path).close()
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        assert json.loads(line)["loss"] == json.loads(line)["step"]


def test_who_removes_the_files_of_a_run_stops_it(tmp_path):
    """Also where another run was begun in the same place: neither is mixed into the other."""
    for again in (False, True):
        writer = MetricsWriter(tmp_path / "run")
        writer.write("sft", 1, {"loss": 1.0})
        (tmp_path / "run").rename(tmp_path / f"moved {again}")
        if again:
            MetricsWriter(tmp_path / "run").close()
        with pytest.raises(UserError, match=r"metrics.jsonl could not be written: .*run the same"):
            writer.write("sft", 2, {"loss": 0.5})
        writer.close()
        assert read_metrics(tmp_path / "run") == []


def test_values_of_a_stage_by_step(tmp_path):
    """Also of a file that is gone, or that somebody has cut."""
    assert logged(tmp_path, "sft", "loss") == {}
    write_two_stages(tmp_path).close()
    assert logged(tmp_path, "sft", "loss") == {0: 0.0, 5: 5.0, 10: 10.0, 15: 15.0}
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "sft", "step": 20, "validation/loss": NaN, "n": 3}\n')
    assert logged(tmp_path, "sft", "n") == {20: 3.0}
    assert math.isnan(logged(tmp_path, "sft", "validation/loss")[20])
    assert len(logged(tmp_path, "sft", "loss")) == 4 and logged(tmp_path, "kto", "loss") == {}


@pytest.mark.parametrize("value", ['"x"', "null", "true", "{}", "[1]", "9" * 400])
def test_what_is_no_number_is_no_metric(tmp_path, value):
    (tmp_path / "metrics.jsonl").write_text(f'{{"stage": "a", "step": 1, "loss": {value}}}\n')
    with pytest.raises(UserError, match=r"metrics.jsonl:1: 'loss' is .* no number; remove that"):
        MetricsWriter(tmp_path)


@pytest.mark.parametrize("line", ["[]", "3", '{"stage": 1, "step": 2}', '{"stage": "a"}', "\\xff"])
def test_lines_of_another_form_are_named(tmp_path, line):
    (tmp_path / "metrics.jsonl").write_text('{"stage": "sft", "step": 1}\n' + line + "\n")
    with pytest.raises(UserError, match=r"metrics.jsonl:2.*; remove that line$|:2: Expected"):
        read_metrics(tmp_path)
