"""SIGKILL at random moments: the same command again gives the bits of the uninterrupted run."""

import functools
import random
import signal
from collections.abc import Iterator

from benchmarks.hostile.base import Base
from benchmarks.hostile.processes import arguments, goes_on, uninterrupted
from benchmarks.hostile.trial import Room, Trial

KIND = "kills"
# command: how many kills, steps of the run
COMMANDS = {"sft": (12, 12), "dpo": (10, 8), "grpo": (8, 4)}


def trials(base: Base, seed: int) -> Iterator[Trial]:
    """Thirty kills; every fifth run is killed three times."""
    chance = random.Random(f"{KIND} {seed}")
    for name, (count, steps) in COMMANDS.items():
        for number in range(count):
            moments = [chance.random() for _ in range(3 if number % 5 == 4 else 1)]
            act = functools.partial(killed, name=name, steps=steps, moments=moments)
            yield Trial(kind=KIND, name=f"{name}_{number}", act=act, alone=True)


def killed(room: Room, *, name: str, steps: int, moments: list[float]) -> str:
    """Killed after shares of the time that the whole run takes."""
    uninterrupted(room, name, steps)
    seconds = room.unharmed(f"time {name}", lambda: whole_time(room, name, steps))
    for share in moments:
        process = room.start(*arguments(room, name, steps))
        process.until(lambda p=process, s=share: p.age() > s * seconds)
        process.send(signal.SIGKILL)
        process.until(lambda: False)
    goes_on(room, name, steps)
    return "right"


def whole_time(room: Room, name: str, steps: int) -> float:
    """Seconds that a run takes whose programs are compiled."""
    process = room.start(*arguments(room, name, steps, "timed"))
    process.ending()
    return process.age()
