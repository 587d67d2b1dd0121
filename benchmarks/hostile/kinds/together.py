"""Several processes at one place: one lock and one line, or both right."""

import json
import signal
import time
from collections.abc import Callable, Iterator

from benchmarks.hostile.base import Base, command
from benchmarks.hostile.judge import Fault, either, refused, worked
from benchmarks.hostile.processes import arguments, goes_on, lines, model_of, uninterrupted
from benchmarks.hostile.trial import Room, Trial

KIND = "together"
STEPS = 400


def trials(base: Base, seed: int) -> Iterator[Trial]:
    """Two of one command, of two commands, readers beside writers, a lock that was left behind."""
    acts: dict[str, Callable[[Room], str]] = {
        "same_command": same_command,
        "same_command_at_once": at_once,
        "other_command": other_command,
        "report_beside": report_beside,
        "evaluate_beside": evaluate_beside,
        "lock_left_behind": lock_left_behind,
        "stopped_process": stopped_process,
        "kept_logps": kept_logps,
        "exports": exports,
    }
    for name, act in acts.items():
        yield Trial(kind=KIND, name=name, act=act, alone=True)


def same_command(room: Room) -> str:
    """The second is refused in a line, the first is as if alone."""
    first = room.start(*arguments(room, "sft", STEPS))
    first.until(lambda: lines(room) >= 2)
    second = room.start(*arguments(room, "sft", STEPS)).ending()
    ending = first.ending()
    done = refused(second, "run", "process")
    worked(ending)
    if model_of(room) != uninterrupted(room, "sft", STEPS):
        raise Fault("lost", "another model than alone")
    return done


def at_once(room: Room) -> str:
    """Started at one moment: one works, the other is refused."""
    both = [room.start(*arguments(room, "sft", STEPS)) for _ in range(2)]
    endings = sorted((process.ending() for process in both), key=lambda ending: ending.status)
    worked(endings[0])
    done = refused(endings[1], "run", "process")
    if model_of(room) != uninterrupted(room, "sft", STEPS):
        raise Fault("lost", "another model than alone")
    return done


def other_command(room: Room) -> str:
    """Another command in the directory of a running one."""
    first = room.start(*arguments(room, "sft", STEPS))
    first.until(lambda: lines(room) >= 2)
    second = room.start(*command("dpo", room.base)).ending()
    worked(first.ending())
    return refused(second, "run", "process")


def report_beside(room: Room) -> str:
    """A page of a run that goes on."""
    first = room.start(*arguments(room, "sft", STEPS))
    first.until(lambda: lines(room) >= 2)
    second = room.start("report", "run").ending()
    worked(first.ending())
    return either(second, lambda: None, "run")


def evaluate_beside(room: Room) -> str:
    """The model of a run that goes on is read while it is replaced."""
    worked(room.start(*arguments(room, "sft", 4)).ending())
    process = room.start(*arguments(room, "sft", 4))
    ending = room.start("evaluate", "--model", "run", "--data.path", room.base.short).ending()
    worked(process.ending())
    return worked(ending)


def lock_left_behind(room: Room) -> str:
    """A process that was killed holds no lock."""
    first = room.start(*arguments(room, "sft", STEPS))
    first.until(lambda: lines(room) >= 2)
    first.send(signal.SIGKILL)
    first.until(lambda: False)  # it has ended
    goes_on(room, "sft", STEPS)
    return "right"


def stopped_process(room: Room) -> str:
    """A process that stands still holds its directory."""
    first = room.start(*arguments(room, "sft", STEPS))
    first.until(lambda: lines(room) >= 2)
    first.send(signal.SIGSTOP)
    try:
        second = room.start(*arguments(room, "sft", STEPS)).ending()
    finally:
        first.send(signal.SIGCONT)
    worked(first.ending())
    done = refused(second, "run", "process")
    if model_of(room) != uninterrupted(room, "sft", STEPS):
        raise Fault("lost", "another model than alone")
    return done


def kept_logps(room: Room) -> str:
    """Two runs that keep the same log-probabilities."""
    both = [room.start(*command("dpo", room.base, run_dir=name), "--reference_logps", "kept")
            for name in ("one", "two")]  # fmt: skip
    for process in both:
        worked(process.ending())
    if model_of(room, "one") != model_of(room, "two"):
        raise Fault("lost", "two equal runs gave two models")
    return "right"


def exports(room: Room) -> str:
    """Two exports to one folder: one is whole, the other works or is refused."""
    both = [room.start("export", "--model", room.base.policy, "--output", "out") for _ in range(2)]
    time.sleep(0)
    endings = sorted((process.ending() for process in both), key=lambda ending: ending.status)
    worked(endings[0])
    assert json.loads((room.path / "out" / "config.json").read_text())
    return either(endings[1], lambda: None, "out")
