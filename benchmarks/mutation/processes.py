"""Children made by fork: a child answers with one JSON value, or dies."""

import json
import os
import select
import sys
import traceback
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any


@dataclass
class _Child:
    pid: int
    pipe: int
    received: bytes = b""


def fork(task: Callable[[], Any]) -> _Child:
    """Starts `task` in a copy of this process, silent, and keeps the pipe with its answer."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        os.close(writer)
        return _Child(pid, reader)
    try:
        os.close(reader)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        with os.fdopen(writer, "w") as pipe:
            json.dump(task(), pipe)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _finish(child: _Child) -> dict:
    """What the child answered, or how it died."""
    os.close(child.pipe)
    _, status = os.waitpid(child.pid, 0)
    if os.WIFSIGNALED(status):
        return {"signal": os.WTERMSIG(status)}
    return {"answer": json.loads(child.received)} if child.received else {"signal": 0}


Stream = Generator[Callable[[], Any], dict, None]
"""Yields tasks one after another; is sent `{"answer": value}` or `{"signal": number}` of each."""


def run_streams(streams: Iterable[Stream], jobs: int):
    """Runs `jobs` streams at a time; the tasks of one stream never overlap."""
    waiting = iter(streams)
    active: dict[int, tuple[_Child, Stream]] = {}

    def start(stream: Stream | None, outcome: dict | None = None):
        while stream is not None:
            try:
                child = fork(stream.send(outcome) if outcome is not None else next(stream))
            except StopIteration:
                stream, outcome = next(waiting, None), None
                continue
            active[child.pipe] = (child, stream)
            return

    for _ in range(jobs):
        start(next(waiting, None))
    while active:
        ready, _, _ = select.select(list(active), [], [])
        for pipe in ready:
            child, stream = active[pipe]
            if data := os.read(pipe, 1 << 16):
                child.received += data
            else:
                del active[pipe]
                start(stream, _finish(child))
