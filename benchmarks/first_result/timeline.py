"""A process watched from outside: when it said or wrote what, its memory and processor time."""

import dataclasses
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

MARK = "@@"  # a worker's line `@@model` is the mark "model", now
MARKS = ("first line", "first step", "model", "evaluation", "end")
LINE_ENDS = re.compile(rb"[\r\n]+")  # a progress bar draws its lines with \r


@dataclasses.dataclass
class Timeline:
    """What was seen of a process.

    marks: seconds from its start, by the names of `MARKS`.
    peak_mib: largest resident memory, MiB.
    cpu_seconds: of all its threads.
    failure: why there is no result; empty: there is one.
    """

    marks: dict[str, float] = dataclasses.field(default_factory=dict)
    peak_mib: float = 0.0
    cpu_seconds: float = 0.0
    failure: str = ""


def watched(
    command: Sequence[str], *, env: Mapping[str, str], log: Path, timeout: float
) -> tuple[Timeline, float]:
    """`(timeline, moment of the start)` of a command that is run to its end.

    The moment is in seconds since 1970, as the times of files are.

    Args:
      command: to run, with its whole process group.
      env: its environment.
      log: file for all that it prints.
      timeout: seconds after which it is killed; its timeline is kept.
    """
    seen, is_late = Timeline(), threading.Event()
    start = time.time()
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=env,
        start_new_session=True,
    )

    def kill() -> None:
        is_late.set()
        os.killpg(process.pid, signal.SIGKILL)

    timer = threading.Timer(timeout, kill)
    timer.start()
    try:
        assert process.stdout
        with log.open("wb") as file:
            last = _marked(seen, process.stdout.fileno(), file, start)
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    finally:
        timer.cancel()
        if process.stdout:
            process.stdout.close()
    process.returncode = os.waitstatus_to_exitcode(status)
    seen.marks["end"] = time.time() - start
    seen.peak_mib, seen.cpu_seconds = usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime
    if is_late.is_set():
        seen.failure = f"killed after {timeout:.0f} s"
    elif process.returncode:
        seen.failure = f"status {process.returncode}: {last}"
    return seen, start


def _marked(seen: Timeline, descriptor: int, log, start: float) -> str:
    """The last line of a process, whose marks are noted on the way."""
    last = ""
    for line in lines_of(descriptor, log):
        seen.marks.setdefault("first line", time.time() - start)
        if line.startswith(MARK):
            seen.marks[line.removeprefix(MARK)] = time.time() - start
        else:
            last = line
    return last


def lines_of(descriptor: int, log) -> Iterator[str]:
    """Lines of a pipe as they come, without empty ones; all bytes go to the log too."""
    rest = b""
    while block := os.read(descriptor, 65536):
        log.write(block)
        log.flush()
        *lines, rest = LINE_ENDS.split(rest + block)
        yield from (line.decode(errors="replace").strip() for line in lines if line.strip())
    if rest.strip():
        yield rest.decode(errors="replace").strip()


def last_written(folder: Path, start: float) -> float | None:
    """Seconds from the start to the last change of a file in a folder; None: there is none."""
    times = [path.stat().st_mtime for path in folder.rglob("*") if path.is_file()]
    return max(times) - start if times else None
