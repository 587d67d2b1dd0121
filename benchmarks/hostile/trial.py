"""A trial, and the room that it is made in: a directory, and the program to call there."""

import contextlib
import dataclasses
import io
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.hostile.judge import Ending


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """One hostile input or fault.

    kind: of fault, a row of the table. name: unique, for `--only`.
    act: sets it up, calls the program, and returns "right" or "line"; raises a Fault otherwise.
    alone: it starts processes of its own, and takes long.
    """

    kind: str
    name: str
    act: Callable[["Room"], str]
    alone: bool = False

    @property
    def label(self) -> str:
        """Kind and name, as `--only` takes it."""
        return f"{self.kind}/{self.name}"


class Hang(BaseException):
    """The limit of a trial has passed; no `except Exception` of the program holds it up."""


@dataclasses.dataclass(kw_only=True)
class Room:
    """Where a trial is made: an empty directory, which is the working directory too.

    path: the directory. base: what all trials start from. kept: results of unharmed inputs, by
    name, for all trials of a process.
    """

    path: Path
    base: Any
    kept: dict[str, Any]

    def write(self, name: str, content: Any) -> str:
        """A file: text and bytes as they are, a list as JSON lines, anything else as JSON."""
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            file.write_bytes(content)
        elif isinstance(content, str):
            file.write_text(content, encoding="utf-8", errors="surrogatepass", newline="")
        elif isinstance(content, list):
            file.write_text("".join(f"{json.dumps(row)}\n" for row in content))
        else:
            file.write_text(json.dumps(content))
        return str(file)

    def call(self, *arguments: str) -> Ending:
        """The program, within this process."""
        from jaxalign.cli import main

        return called(lambda: main([*arguments]))

    def start(self, *arguments: str, before: Callable[[], object] = lambda: None) -> "Process":
        """The program in a process of its own; `before` is called there first."""
        return Process([*arguments], before)

    def unharmed(self, name: str, make: Callable[[], Any]) -> Any:
        """What an unharmed input gives, made once in a process."""
        if name not in self.kept:
            self.kept[name] = make()
        return self.kept[name]


def called(function: Callable[[], object]) -> Ending:
    """What a call writes, and how it ends; signal handlers are afterwards those of before."""
    out, err, status, error = io.StringIO(), io.StringIO(), 0, ""
    with (
        handlers_kept(),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        standard_error_kept() as beside,
    ):
        try:
            function()
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
            if isinstance(stop.code, str):
                err.write(f"{stop.code}\n")
        except Hang:
            raise
        except BaseException:
            status, error = 1, traceback.format_exc()
    return Ending(status, out.getvalue(), err.getvalue() + "".join(beside), error)


@contextlib.contextmanager
def standard_error_kept() -> Iterator[list[str]]:
    """What is written to the descriptor of standard error itself, past `sys.stderr`."""
    written: list[str] = []
    with tempfile.TemporaryFile() as file:
        before = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield written
        finally:
            os.dup2(before, 2)
            os.close(before)
            file.seek(0)
            written.append(file.read().decode(errors="replace"))


@contextlib.contextmanager
def handlers_kept() -> Iterator[None]:
    """Signal handlers, working directory and umask as they were."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before, here = [signal.getsignal(number) for number in numbers], os.getcwd()
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
        os.chdir(here)


class Process:
    """A call of the program in a process that is forked from this one, which has no jax running."""

    def __init__(self, arguments: list[str], before: Callable[[], object]):
        """Start it; what it writes comes through pipes, which no full disk stops."""
        pipes = [os.pipe() for _ in range(2)]
        self.pipes = [read for read, _ in pipes]
        self.written = [bytearray(), bytearray()]
        sys.stdout.flush()
        sys.stderr.flush()
        self.began = time.monotonic()
        self.pid = os.fork()
        self.status: int | None = None
        if self.pid == 0:
            self._run(arguments, before, [write for _, write in pipes])
        for read, write in pipes:
            os.close(write)
            os.set_blocking(read, False)

    def _run(self, arguments: list[str], before: Callable[[], object], targets: list[int]) -> None:
        """In the new process: call the program as the shell would, and exit as it does."""
        status = 70
        try:
            for timer in (signal.ITIMER_REAL, signal.ITIMER_PROF):
                signal.setitimer(timer, 0)
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGALRM, signal.SIGPROF):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            for number, target in zip((1, 2), targets, strict=True):
                os.dup2(target, number)
            sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
            before()
            status = program_status(arguments)
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)

    def age(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self.began

    def send(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.running():
            os.kill(self.pid, number)

    def _read(self) -> None:
        """What it has written since the last time."""
        for pipe, written in zip(self.pipes, self.written, strict=False):  # none when it ended
            with contextlib.suppress(BlockingIOError):
                while more := os.read(pipe, 2**16):
                    written += more

    def running(self) -> bool:
        """Whether it has not ended."""
        self._read()
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
                self._read()
                while self.pipes:
                    os.close(self.pipes.pop())
        return self.status is None

    def until(self, happened: Callable[[], object], limit: float = 120.0) -> bool:
        """Wait until something has happened, or it has ended; whether it happened."""
        end = time.monotonic() + limit
        while not (found := happened()) and self.running() and time.monotonic() < end:
            time.sleep(0.002)
        return bool(found)

    def ending(self, limit: float = 240.0) -> Ending:
        """Wait for its end; one that does not come within the limit is a hang."""
        self.until(lambda: False, limit)
        if self.running():
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            raise Hang
        assert self.status is not None
        out, err = (written.decode(errors="replace") for written in self.written)
        return Ending(self.status, out, err)


def program_status(arguments: list[str]) -> int:
    """The exit status that a Python program of that call would have, its threads ended."""
    import threading

    from jaxalign.cli import main

    status = 0
    try:
        main(arguments)
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
    except BaseException as error:
        traceback.print_exc()
        status = 130 if isinstance(error, KeyboardInterrupt) else 1
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join(60)
    return status
