"""Worker processes that make trials, replaced when one hangs, crashes or takes too much memory.

They are forked from a process that has imported everything and started no jax: a trial takes
milliseconds and not the seconds of an import.
"""

import contextlib
import dataclasses
import multiprocessing
import os
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from benchmarks.hostile.judge import Fault
from benchmarks.hostile.trial import Hang, Room, Trial

MEMORY = 2**30  # bytes that a trial within a process may add
TIRED = 3 * 2**30  # bytes of a worker that is replaced, and trials after which it is
MOST_TRIALS = 300
PATIENCE = 2.5  # seconds on the clock for a second of work
FORK = multiprocessing.get_context("fork")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a trial: one of `judge.OUTCOMES`, what was seen, and seconds."""

    trial: Trial
    outcome: str
    detail: str
    seconds: float


@dataclasses.dataclass
class _Worker:
    """A process, the trial that it makes, since when, and its memory at that start."""

    process: Any
    connection: Connection
    trial: Trial | None = None
    began: float = 0.0
    memory: int = 0
    made: int = 0


def run_all(
    trials: Sequence[Trial],
    base: Any,
    *,
    limit: float,
    workers: int,
    report: Callable[[Outcome], object],
) -> list[Outcome]:
    """All outcomes, in the order in which they came.

    Args:
      trials: to make.
      base: what they start from; rooms are made below its `work`.
      limit: seconds of a trial.
      workers: processes side by side.
      report: gets every outcome as it comes.
    """
    waiting, outcomes, crew = list(reversed(trials)), [], []
    numbers = {trial.label: number for number, trial in enumerate(trials)}
    assert len(numbers) == len(trials), "two trials have one name"

    def came(worker: _Worker, outcome: str, detail: str) -> None:
        assert worker.trial is not None
        found = Outcome(worker.trial, outcome, detail, time.monotonic() - worker.began)
        outcomes.append(found)
        report(found)
        worker.trial, worker.made = None, worker.made + 1

    try:
        while waiting or any(worker.trial for worker in crew):
            while waiting and len(crew) < workers:
                crew.append(_hired(trials, base))
            for worker in crew:
                if worker.trial is None and waiting:
                    _hand(worker, waiting.pop(), numbers, limit)
            wait([worker.connection for worker in crew], timeout=0.05)
            for worker in list(crew):
                if worker.trial is not None:
                    _look(worker, came, limit, base.work)
                if worker.trial is None and _is_done(worker):
                    _dismiss(worker, base.work)
                    crew.remove(worker)
    finally:
        for worker in crew:
            _dismiss(worker, base.work)
    return outcomes


def _hired(trials: Sequence[Trial], base: Any) -> _Worker:
    ours, theirs = FORK.Pipe()
    process = FORK.Process(target=_serve, args=(theirs, trials, base), daemon=False)
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _hand(worker: _Worker, trial: Trial, numbers: dict[str, int], limit: float) -> None:
    worker.trial, worker.began = trial, time.monotonic()
    worker.memory = resident(worker.process.pid)
    with contextlib.suppress(OSError):  # it died between two trials: seen when it is looked at
        worker.connection.send((numbers[trial.label], limit))


def _look(worker: _Worker, came: Callable, limit: float, work: Path) -> None:
    """Take its answer, or end it where it will give none."""
    past = time.monotonic() - worker.began - PATIENCE * limit
    if worker.connection.poll():
        try:
            came(worker, *worker.connection.recv())
        except (EOFError, OSError):
            worker.process.join(5)
            came(worker, "traceback", f"the process died: exit code {worker.process.exitcode}")
    elif past > 10:
        _kill(worker, work)
        came(worker, "hang", f"no end in {limit:g} s, nor when it was told to stop")
    elif resident(worker.process.pid) - worker.memory > MEMORY:
        _kill(worker, work)
        came(worker, "memory", f"more than {MEMORY // 2**20} MiB")


def _is_done(worker: _Worker) -> bool:
    tired = worker.made >= MOST_TRIALS or resident(worker.process.pid) > TIRED
    return tired or not worker.process.is_alive()


def _kill(worker: _Worker, work: Path) -> None:
    """The worker, and what it has started (they are a group of their own), and its rooms."""
    with contextlib.suppress(OSError):
        os.killpg(worker.process.pid, signal.SIGKILL)
    worker.process.join(10)
    for folder in work.glob(f"trial-{worker.process.pid}-*"):
        remove(folder)


def _dismiss(worker: _Worker, work: Path) -> None:
    with contextlib.suppress(OSError):
        worker.connection.send(None)
    worker.process.join(2)
    _kill(worker, work)
    worker.connection.close()


def resident(pid: int) -> int:
    """Bytes of memory of a process; 0 where it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0


def _serve(connection: Connection, trials: Sequence[Trial], base: Any) -> None:
    """Make the trials that come, until None does."""
    os.setpgrp()
    nothing = os.open(os.devnull, os.O_RDWR)
    for target in (0, 1, 2):  # what libraries print past Python
        os.dup2(nothing, target)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    alarm = _Alarm()
    kept: dict[str, Any] = {}
    while (given := _received(connection, os.getppid())) is not None:
        number, limit = given
        connection.send(made(trials[number], base, kept, limit, alarm))
    os._exit(0)  # threads of libraries may never end


def _received(connection: Connection, parent: int) -> Any:
    """What comes next; None also where the process that would send it has ended."""
    while not connection.poll(1.0):
        if os.getppid() != parent:
            return None
    return connection.recv()


class _Alarm:
    """Stops a trial after so many seconds of work, or a few times as many on the clock.

    The machine may be busy with other things; what waits for ever does no work.
    """

    def __init__(self):
        self.armed = self.passed = False
        for number in (signal.SIGALRM, signal.SIGPROF):
            signal.signal(number, self._stop)

    def arm(self, limit: float) -> None:
        """Begin to count."""
        self.armed, self.passed = True, False
        signal.setitimer(signal.ITIMER_PROF, limit)
        signal.setitimer(signal.ITIMER_REAL, PATIENCE * limit)

    def disarm(self) -> None:
        """Stop counting."""
        self.armed = False
        for timer in (signal.ITIMER_PROF, signal.ITIMER_REAL):
            signal.setitimer(timer, 0)

    def _stop(self, number: int, frame: Any) -> None:
        if self.armed:
            self.armed, self.passed = False, True
            raise Hang


def made(
    trial: Trial, base: Any, kept: dict[str, Any], limit: float, alarm: _Alarm
) -> tuple[str, str]:
    """Outcome and detail of a trial, made in this process."""
    before = os.getcwd()
    folder = Path(tempfile.mkdtemp(prefix=f"trial-{os.getpid()}-", dir=base.work))
    _forget_peak()
    start = resident(os.getpid())
    try:
        os.chdir(folder)
        alarm.arm(limit)
        outcome, detail = trial.act(Room(path=folder, base=base, kept=kept)), ""
        alarm.disarm()
    except Fault as fault:
        outcome, detail = fault.outcome, fault.detail
    except Hang:
        outcome, detail = "hang", ""
    except MemoryError:
        outcome, detail = "memory", "MemoryError"
    except Exception:
        outcome, detail = "broken", traceback.format_exc()
    alarm.disarm()
    os.chdir(before)
    remove(folder)
    if alarm.passed:  # also where a library has caught what was raised
        outcome, detail = "hang", f"no end in {limit:g} s"
    if outcome in ("right", "line", "unclear") and _peak() - start > MEMORY:
        outcome, detail = "memory", f"{(_peak() - start) // 2**20} MiB at most, then {outcome}"
    return outcome, detail


def _forget_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def remove(folder: Path) -> None:
    """The directory, also where a trial has taken rights away."""
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir() and not path.is_symlink():
            with contextlib.suppress(OSError):
                path.chmod(0o755)
    shutil.rmtree(folder, ignore_errors=True)
