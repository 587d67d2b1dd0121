"""Trackers of a run directory: services that `--track` names, and the report while it runs."""

import dataclasses
import functools
import importlib.util
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jaxalign.config.checks import nearest
from jaxalign.errors import UserError
from jaxalign.report import write_report
from jaxalign.system.files import exists, quote, read_json, short_path, write_atomically
from jaxalign.train.trackers import SERVICES, Guarded, TrackedRun, Tracker

FILE = "trackers.json"
FIRST = 60.0  # seconds until the first report of a run
SHARE = 50  # the report is written again after this many times what writing it took


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tracked:
    """Contents of `trackers.json`: names of services that follow the run."""

    services: list[str]


def services_of(given: str) -> list[str]:
    """Names of services after `--track`, separated by commas.

    Raises:
      UserError: one is unknown, or its package is not installed.
    """
    names = [name.strip() for name in given.split(",") if name.strip()]
    for name in names:
        if name not in SERVICES:
            raise UserError(
                f"--track {quote(name)} is no tracker; there are {', '.join(SERVICES)} "
                f"(TensorBoard is always written){nearest(name, SERVICES)}"
            )
        if importlib.util.find_spec(name) is None:
            raise UserError(f"--track {name} needs its package: pip install 'jaxalign[{name}]'")
    return names


def keep_services(directory: Path, names: list[str]) -> None:
    """Note which services follow a run: when it goes on, so do they."""
    noted = json.dumps(dataclasses.asdict(Tracked(services=names)), indent=1)
    write_atomically(directory / FILE, noted)


def trackers_of(directory: Path, config: Any, *, key: str) -> list[Tracker]:
    """Trackers of a run: its report, and the services that were noted.

    Args:
      directory: of the run.
      config: its resolved configuration, a dataclass.
      key: that no other run has.

    Raises:
      UserError: a service that was noted is none.
    """
    found: list[Tracker] = [Guarded("the report", lambda: LiveReport(directory))]
    if not exists(directory / FILE):
        return found
    run = TrackedRun(
        directory=directory,
        name=directory.absolute().name,
        key=key,
        config=dataclasses.asdict(config),
    )
    names = read_json(directory / FILE, Tracked).services
    if unknown := [name for name in names if name not in SERVICES]:
        raise UserError(
            f"{short_path(directory / FILE)} names {quote(unknown[0])}, which is no tracker; "
            f"give --track with what is to follow the run: {', '.join(SERVICES)}"
        )
    return found + [Guarded(name, functools.partial(SERVICES[name], run)) for name in names]


class LiveReport:
    """`report.html` of a run that goes on, written again from time to time.

    It says how far the run is. What writing took decides how often: at most a fiftieth of the time.
    """

    def __init__(self, directory: Path, *, clock: Callable[[], float] = time.monotonic):
        """Begin; nothing is written yet. Clock: seconds."""
        self._directory, self._clock = directory, clock
        self._due = clock() + FIRST
        self._last, self._written = "", 0

    def write(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Note how far the run is, and write the page where it is due."""
        self._last = f"{stage}, step {step:,}"
        start = self._clock()
        if start < self._due:
            return
        self._page(f"Running: {self._last}, at {time.strftime('%H:%M:%S')}")
        end = self._clock()
        self._due = end + max(FIRST, SHARE * (end - start))

    def close(self, failed: bool) -> None:
        """Write the page of a run that stopped, and of one that left it as of an earlier step."""
        if failed and (self._written or self._clock() >= self._due):
            self._page(f"Stopped after {self._last}; the same command goes on from there")
        elif self._written and self._written == self._stamp():
            self._page("")

    def _page(self, state: str) -> None:
        write_report(self._directory, state)
        self._written = self._stamp()

    def _stamp(self) -> int:
        return os.stat(self._directory / "report.html").st_mtime_ns
