"""Trackers: services and pages that are told the metrics of a run while it goes on.

One that fails is left out from then on, with one line: it never ends a run.
"""

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from jaxalign.errors import one_line
from jaxalign.system.signals import say


class Tracker(Protocol):
    """Anything that is told the metrics of a run."""

    def write(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Take the numbers of one step of a stage."""
        ...

    def close(self, failed: bool) -> None:
        """End, after the run or because it failed."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrackedRun:
    """A run as a tracking service knows it.

    directory: of the run; whatever the service keeps on this machine lies below it.
    name: of the run there; its project is the folder that holds the run.
    key: that no other run has, by which the service finds it again.
    config: the resolved configuration.
    """

    directory: Path
    name: str
    key: str
    config: Mapping[str, Any]

    @property
    def project(self) -> str:
        """Name of the folder that holds the run.

        >>> run = TrackedRun(directory=Path("/a/runs/dpo"), name="dpo", key="1", config={})
        >>> run.project
        'runs'
        """
        return self.directory.absolute().parent.name or "jaxalign"


class WandbTracker:
    """A run of Weights & Biases; WANDB_MODE=offline keeps it on this machine."""

    def __init__(self, run: TrackedRun):
        wandb = importlib.import_module("wandb")
        self._stages = set[str]()
        self._run: Any = wandb.init(
            project=run.project,
            name=run.name,
            id=run.key,
            resume="allow",
            dir=str(run.directory),
            config=dict(run.config),
            settings=wandb.Settings(silent=True, console="off", save_code=False, disable_git=True),
        )

    def write(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Numbers under `stage/name`, over the steps of that stage."""
        if stage not in self._stages:
            self._run.define_metric(f"{stage}/step")
            self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
            self._stages.add(stage)
        self._run.log(named(stage, metrics) | {f"{stage}/step": step})

    def close(self, failed: bool) -> None:
        """Send what is left; a run that failed is marked so."""
        self._run.finish(exit_code=int(failed))


class TrackioTracker:
    """A run of trackio, which keeps it on this machine unless TRACKIO_SPACE_ID names a space."""

    def __init__(self, run: TrackedRun):
        trackio = importlib.import_module("trackio")
        self._run: Any = trackio.init(
            project=run.project,
            name=f"{run.name}-{run.key[:6]}",
            config=dict(run.config),
            resume="allow",
            embed=False,
        )

    def write(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Numbers under `stage/name`, with the step of that stage."""
        self._run.log(named(stage, metrics) | {f"{stage}/step": step}, step=step)

    def close(self, failed: bool) -> None:
        """Send what is left."""
        self._run.finish()


# name after --track, which is the package and the extra that installs it too
SERVICES: dict[str, Callable[[TrackedRun], Tracker]] = {
    "wandb": WandbTracker,
    "trackio": TrackioTracker,
}


def named(stage: str, metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics under the name of their stage.

    >>> named("dpo", {"loss": 0.5})
    {'dpo/loss': 0.5}
    """
    return {f"{stage}/{name}": value for name, value in metrics.items()}


class Guarded:
    """A tracker that is made when it is first told something, and left out once it fails."""

    def __init__(self, name: str, make: Callable[[], Tracker]):
        """Name: for the line that says that it failed."""
        self._name, self._make = name, make
        self._tracker: Tracker | None = None
        self._is_lost = False

    def write(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Pass the numbers on."""
        self._attempt(lambda: self._made().write(stage, step, metrics))

    def close(self, failed: bool) -> None:
        """End the tracker, if it was ever told anything."""
        if self._tracker is not None:
            self._attempt(lambda: self._made().close(failed))

    def _made(self) -> Tracker:
        if self._tracker is None:
            self._tracker = self._make()
        return self._tracker

    def _attempt(self, action: Callable[[], None]) -> None:
        if self._is_lost:
            return
        try:
            action()
        except Exception as error:  # whatever a service or a full disk may raise
            self._is_lost = True
            say(f"{self._name} is left out from now on: {one_line(error)}")
