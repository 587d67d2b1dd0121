"""Trackers: what they are told, and that none ends a run."""

import sys
import types
from pathlib import Path

import pytest

from jaxalign.train.metrics import MetricsWriter, read_metrics
from jaxalign.train.trackers import SERVICES, Guarded, TrackedRun


class Recorder:
    """A service's run, or its package: notes every call."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        def call(*arguments, **named):
            self.calls.append((name, arguments, named))
            return self

        return call


def tracked(tmp_path):
    return TrackedRun(
        directory=tmp_path / "runs" / "dpo", name="dpo", key="abcdef0123", config={"seed": 1}
    )


@pytest.fixture
def package(request, monkeypatch):
    """A package by that name whose every function notes its call."""
    recorder = Recorder()
    module = types.ModuleType(request.param)
    for name in ("init", "Settings"):
        setattr(module, name, getattr(recorder, name))
    monkeypatch.setitem(sys.modules, request.param, module)
    return request.param, recorder


@pytest.mark.parametrize("package", SERVICES, indirect=True)
def test_a_service_gets_config_metrics_and_the_same_run_again(package, tmp_path):
    name, recorder = package
    for failed in (False, True):
        tracker = SERVICES[name](tracked(tmp_path))
        tracker.write("dpo", 3, {"loss": 0.5})
        tracker.close(failed)
    calls = [call for call in recorder.calls if call[0] == "init"]
    assert calls[0] == calls[1] and calls[0][2]["resume"] == "allow"
    assert (calls[0][2]["project"], calls[0][2]["config"]) == ("runs", {"seed": 1})
    assert "abcdef" in calls[0][2].get("id", calls[0][2]["name"])
    logged = [arguments[0] for called, arguments, _ in recorder.calls if called == "log"]
    assert logged == 2 * [{"dpo/loss": 0.5, "dpo/step": 3}]
    assert [called for called, *_ in recorder.calls].count("finish") == 2


class Broken:
    """A tracker that fails in one of its functions."""

    def __init__(self, where):
        self.where, self.calls = where, 0

    def make(self):
        if self.where == "make":
            raise OSError("no network")
        return self

    def write(self, stage, step, metrics):
        self.calls += 1
        if self.where == "write":
            raise RuntimeError("rejected\nby the service")

    def close(self, failed):
        raise ValueError("gone")


@pytest.mark.parametrize(
    ("where", "why"),
    [("make", "no network"), ("write", "rejected; by the service"), ("close", "gone")],
)
def test_a_tracker_that_fails_ends_no_run_and_is_told_of_once(where, why, tmp_path, capfd):
    broken = Broken(where)
    metrics = MetricsWriter(tmp_path, [Guarded("wandb", broken.make)])
    for step in range(3):
        metrics.write("dpo", step, {"loss": 0.5})
    metrics.close()
    assert [line["step"] for line in read_metrics(tmp_path)] == [0, 1, 2]
    assert capfd.readouterr().err == f"wandb is left out from now on: {why}\n"
    assert broken.calls == {"make": 0, "write": 1, "close": 3}[where]


def test_a_tracker_is_told_what_is_on_disk_already(tmp_path):
    told = []

    class Reader:
        def write(self, stage, step, metrics):
            told.append((stage, step, dict(metrics), len(read_metrics(tmp_path))))

        def close(self, failed):
            told.append(failed)

    metrics = MetricsWriter(tmp_path, [Reader()])
    metrics.write("sft", 1, {"loss": 2})
    metrics.close(failed=True)
    assert told == [("sft", 1, {"loss": 2.0}, 1), True]


def test_the_project_of_a_run_without_a_folder_has_a_name():
    run = TrackedRun(directory=Path("/dpo"), name="dpo", key="1", config={})
    assert run.project == "jaxalign"
