"""SIGINT, SIGTERM and SIGHUP, once and twice, before, in and behind the loop: one line, nothing
lost.
"""

import functools
import json
import signal
import time
from collections.abc import Iterator

from benchmarks.hostile.base import Base, rows
from benchmarks.hostile.judge import Ending, Fault, tail, whole
from benchmarks.hostile.processes import arguments, goes_on, lines, moment
from benchmarks.hostile.trial import Room, Trial

KIND = "signals"
SIGNALS = {"int": signal.SIGINT, "term": signal.SIGTERM, "hup": signal.SIGHUP}
MOMENTS = ("load", "first", "loop", "late", "model", "report")
STEPS = 150


def trials(base: Base, seed: int) -> Iterator[Trial]:
    """Every signal at every moment; twice in the loop, at the load and in the report."""
    for name in SIGNALS:
        for when in MOMENTS:
            yield _trial(f"{name}_{when}", name, when, [0.0])
        for when in ("load", "loop", "report"):
            yield _trial(f"{name}_{when}_twice", name, when, [0.0, 0.05])
    yield _trial("int_loop_storm", "int", "loop", [0.01] * 20)
    yield _trial("term_loop_storm", "term", "loop", [0.01] * 20)
    for command in ("dpo", "grpo"):
        yield _trial(f"{command}_term_first", "term", "first", [0.0], command)
        yield _trial(f"{command}_int_loop", "int", "loop", [0.0], command)
    yield Trial(kind=KIND, name="evaluate_int", act=evaluate_stopped, alone=True)
    yield Trial(kind=KIND, name="generate_term", act=generate_stopped, alone=True)


def _trial(name: str, number: str, when: str, gaps: list[float], command: str = "sft") -> Trial:
    settings = {"number": SIGNALS[number], "when": when, "gaps": gaps, "command": command}
    return Trial(kind=KIND, name=name, act=functools.partial(stopped, **settings), alone=True)


def stopped(room: Room, *, number: int, when: str, gaps: list[float], command: str) -> str:
    """Stopped at that moment: a line and no traceback; the same command again loses nothing."""
    steps = 40 if command == "grpo" else STEPS
    given = arguments(room, command, steps)
    if when == "load":
        given[given.index("--data.path") + 1] = many_rows(room)
    process = room.start(*given)
    moment(room, when, process)
    seen = lines(room)
    for gap in gaps:
        time.sleep(gap)
        process.send(number)
    ending = process.ending()
    check(ending, number, told=len(gaps) == 1, may_finish=when in ("late", "model", "report"))
    if when != "load":
        if ending.status and len(gaps) == 1 and lines(room) < seen:
            raise Fault("lost", f"{seen} steps were reported, {lines(room)} are kept")
        goes_on(room, command, steps)
    return "right"


def check(ending: Ending, number: int, *, told: bool, may_finish: bool) -> None:
    """No traceback, the status of the signal, and (for the first one) a line that says it.

    Raises:
      Fault: it ended in another way.
    """
    died = ending.status == -number
    whole(Ending(0, ending.out, ending.err) if died else ending)
    if ending.status == 0:
        if not may_finish:
            raise Fault("silent", "the signal was swallowed")
        return
    if died and told:
        raise Fault("lost", "died without a word, nothing was saved")
    if not died and ending.status not in (128 + number, 2):
        raise Fault("unclear", f"status {ending.status}: {tail(ending.err)}")
    words = [line for line in ending.err.splitlines() if line.strip()]
    if told and len(words) != 1:
        raise Fault("unclear", f"{len(words)} lines: {tail(ending.err)}")


def many_rows(room: Room) -> str:
    """So many rows that they take seconds to be read."""
    lines = "".join(f"{json.dumps(row)}\n" for row in rows("texts"))
    return room.write("many.jsonl", lines * 8000)


def evaluate_stopped(room: Room) -> str:
    """A command that saves nothing is stopped while it reads."""
    data = many_rows(room)
    process = room.start("evaluate", "--model", room.base.policy, "--data.path", data)
    process.until(lambda: process.age() > 0.5)
    process.send(signal.SIGINT)
    check(process.ending(), signal.SIGINT, told=True, may_finish=False)
    return "right"


def generate_stopped(room: Room) -> str:
    """The same for `generate`, at once."""
    given = ["generate", "--model", room.base.policy, "--prompt", "a", "--samples", "4000"]
    process = room.start(*given)
    process.until(lambda: process.age() > 0.3)
    process.send(signal.SIGTERM)
    check(process.ending(), signal.SIGTERM, told=True, may_finish=True)
    return "right"
