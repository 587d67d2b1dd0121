"""The report of a run that goes on, and the services that follow it."""

import dataclasses
import os

import pytest

from jaxalign.errors import UserError
from jaxalign.recipes import tracking
from jaxalign.recipes.tracking import LiveReport, keep_services, services_of, trackers_of
from jaxalign.report import write_report
from jaxalign.train import trackers
from jaxalign.train.metrics import MetricsWriter


class Clock:
    """Seconds that a test moves."""

    now = 0.0

    def __call__(self):
        return self.now


def page(directory):
    return (directory / "report.html").read_text()


@pytest.fixture
def live(tmp_path):
    clock = Clock()
    report = LiveReport(tmp_path, clock=clock)
    with_metrics = MetricsWriter(tmp_path, [report])
    return tmp_path, clock, with_metrics


def test_the_page_of_a_run_that_goes_on_says_how_far_it_is(live):
    directory, clock, metrics = live
    metrics.write("dpo", 1, {"loss": 0.7})
    assert not (directory / "report.html").exists()
    clock.now = 61
    metrics.write("dpo", 1234, {"loss": 0.6})
    assert "Running: dpo, step 1,234, at " in page(directory)
    before = page(directory)
    clock.now = 62
    metrics.write("dpo", 1235, {"loss": 0.6})
    assert page(directory) == before
    metrics.close()
    assert "Running" not in page(directory) and "Stopped" not in page(directory)


def test_the_page_of_a_run_that_failed_says_so(live):
    directory, clock, metrics = live
    clock.now = 61
    metrics.write("dpo", 7, {"loss": float("nan")})
    clock.now = 62
    metrics.write("dpo", 8, {"loss": float("nan")})
    metrics.close(failed=True)
    assert "Stopped after dpo, step 8; the same command goes on from there" in page(directory)


def test_a_short_run_writes_no_page_of_its_own(live):
    directory, _, metrics = live
    metrics.write("dpo", 1, {"loss": 0.7})
    metrics.close(failed=True)
    assert not (directory / "report.html").exists()


def test_the_page_that_the_run_wrote_at_its_end_stays(live):
    directory, clock, metrics = live
    clock.now = 61
    metrics.write("dpo", 7, {"loss": 0.7})
    os.utime(write_report(directory), (1, 1))
    metrics.close()
    assert (directory / "report.html").stat().st_mtime == 1


def test_what_writing_takes_decides_how_often(live, monkeypatch):
    _, clock, metrics = live
    written = []

    def slow(directory, state):
        clock.now += 10
        written.append(state)
        return write_report(directory, state)

    monkeypatch.setattr(tracking, "write_report", slow)
    for clock.now in (61, 100, 540, 580):
        metrics.write("dpo", int(clock.now), {"loss": 0.7})
    assert [state.split(", at")[0] for state in written] == [
        "Running: dpo, step 61",
        "Running: dpo, step 580",
    ]
    metrics.close()


@dataclasses.dataclass(frozen=True)
class Config:
    seed: int = 3


def test_services_of_a_run_are_kept(tmp_path, monkeypatch):
    found = []
    monkeypatch.setitem(trackers.SERVICES, "wandb", found.append)
    assert len(trackers_of(tmp_path, Config(), key="k")) == 1
    keep_services(tmp_path, ["wandb"])
    for _ in range(2):  # again, as when the run goes on
        _, wandb = trackers_of(tmp_path, Config(), key="k")
        wandb.write("dpo", 1, {})
    assert [(run.key, run.config, run.name) for run in found] == 2 * [
        ("k", {"seed": 3}, tmp_path.name)
    ]
    keep_services(tmp_path, services_of(""))
    assert len(trackers_of(tmp_path, Config(), key="k")) == 1
    keep_services(tmp_path, ["os"])  # as nobody but an editor does
    with pytest.raises(UserError, match=r"trackers.json names .os., which is no tracker"):
        trackers_of(tmp_path, Config(), key="k")


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("wandbs", "no tracker; there are wandb, trackio .*; did you mean wandb?"),
        ("wandb", "--track wandb needs its package: pip install 'jaxalign\\[wandb\\]'"),
        ("trackio", "--track trackio needs its package"),
    ],
)
def test_a_tracker_that_is_not_there_is_one_line(given, line, monkeypatch):
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=line):
        services_of(given)
