"""Metrics of a run on disk (JSON lines, TensorBoard events), and the progress display of a loop."""

import contextlib
import json
import logging
import os
import secrets
import struct
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from jaxalign.system.files import (
    FileError,
    exists,
    json_of,
    make_directory,
    quote,
    read_text,
    short_path,
    write_atomically,
    writing,
)
from jaxalign.train.trackers import Tracker

LARGEST_METRICS = 2**32  # bytes


class MetricsWriter:
    """Writer of metrics to `metrics.jsonl` and to TensorBoard events under `tensorboard/<stage>`.

    One line is one call: `{"stage": ..., "step": ..., "time": ..., <name>: <number>, ...}`; time in
    seconds since 1970. Step n is the state after n updates.
    """

    def __init__(self, run_dir: str | os.PathLike[str], trackers: Sequence[Tracker] = ()):
        """Open the files of `run_dir` for appending; a line torn by a kill is dropped.

        Args:
          run_dir: directory of the run.
          trackers: what else is told every number, once it is on disk.
        """
        self._trackers = trackers
        self.directory = make_directory(run_dir)
        self._path = self.directory / "metrics.jsonl"
        self._events: dict[str, Any] = {}
        self._file = _reopened(self._path, lambda line: True)

    def resume(self, stage: str, step: int) -> None:
        """Drop the lines of `stage` after `step` (all of them for step 0): they will come again."""

        def keep(line: dict[str, Any]) -> bool:
            return line["stage"] != stage or (step > 0 and line["step"] <= step)

        self._file.close()
        self._file = _reopened(self._path, keep)
        self._events[stage] = self._open_events(stage, purge_step=step + 1)

    def write(self, stage: str, step: int, metrics: Mapping[str, Any]) -> None:
        """Append the numbers of one step; they are on disk when this returns.

        Raises:
          FileError: they cannot be written, or the file is no longer in its place.
        """
        numbers = {name: float(value) for name, value in metrics.items()}
        line = {"stage": stage, "step": int(step), "time": round(time.time(), 3), **numbers}
        with writing(self._path):
            self._check_in_place()
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        if stage not in self._events:
            self._events[stage] = self._open_events(stage, purge_step=None)
        with writing(self.directory / "tensorboard" / stage):
            self._events[stage].write(_scalars(step, numbers))
            self._events[stage].flush()
        for tracker in self._trackers:
            tracker.write(stage, int(step), numbers)

    def close(self, *, failed: bool = False) -> None:
        """Close all files, and the trackers of a run that ended or failed."""
        for tracker in self._trackers:
            tracker.close(failed)
        with writing(self._path):
            self._file.close()
            for events in self._events.values():
                events.close()

    def _check_in_place(self) -> None:
        """Raise an error if the file was removed or replaced: the lines would be lost."""
        if not os.path.samestat(os.stat(self._path), os.fstat(self._file.fileno())):
            raise OSError("another file has taken its place while the run went on")

    def _open_events(self, stage: str, purge_step: int | None) -> BinaryIO:
        """New file of events, written by this thread, so that `write` raises its errors."""
        from tensorboardX.proto import event_pb2

        protocol: Any = event_pb2  # its classes are made when it is imported
        folder = make_directory(self.directory / "tensorboard" / stage)
        name = f"events.out.tfevents.{int(time.time())}.{secrets.token_hex(4)}"
        with writing(folder):
            if stage in self._events:
                self._events[stage].close()
            events = (folder / name).open("xb")
            events.write(_record(protocol.Event(file_version="brain.Event:2")))
            if purge_step is not None:
                start = protocol.SessionLog(status=protocol.SessionLog.START)
                events.write(_record(protocol.Event(step=purge_step, session_log=start)))
            events.flush()
        return events


def _scalars(step: int, numbers: dict[str, float]) -> bytes:
    """TensorBoard record of the metrics of a step."""
    from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
    from tensorboardX.summary import scalar

    logging.getLogger("tensorboardX.x2num").setLevel(logging.ERROR)  # NaN is told of elsewhere
    event = Event(step=int(step))
    for name, value in numbers.items():
        event.summary.MergeFrom(scalar(name, value))
    return _record(event)


def _record(event: Any) -> bytes:
    """TensorBoard record of an event: length and content, each with its checksum; time is now."""
    from tensorboardX.record_writer import masked_crc32c

    event.wall_time = time.time()
    content = event.SerializeToString()
    length = struct.pack("<Q", len(content))
    sums = (struct.pack("<I", masked_crc32c(part)) for part in (length, content))
    return b"".join((length, next(sums), content, next(sums)))


def _reopened(path: Path, keep: Callable[[dict[str, Any]], bool]) -> TextIO:
    """The file of metrics opened for appending, after all lines but those to keep are dropped."""
    lines = [json.dumps(line) + "\n" for line in read_metrics(path.parent) if keep(line)]
    write_atomically(path, "".join(lines).encode())
    with writing(path):
        return path.open("a")


def read_metrics(run_dir: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Lines of a run's `metrics.jsonl`; an unfinished last line (a kill) is left out.

    Raises:
      UserError: a line that is not JSON of our form, with its number.
    """
    path = Path(run_dir) / "metrics.jsonl"
    if not exists(path):
        return []
    whole, _, _ = read_text(path, largest=LARGEST_METRICS).rpartition("\n")
    lines: list[dict[str, Any]] = []
    for number, text in enumerate(whole.split("\n"), start=1) if whole else ():
        where = f"{short_path(path)}:{number}"
        try:
            line = json_of(text, dict[str, Any], where)
        except FileError as error:
            raise FileError(f"{error}; remove that line") from None
        if not isinstance(line.get("stage"), str) or type(line.get("step")) is not int:
            raise FileError(f"{where} holds no metrics of a step; remove that line")
        for name, value in line.items():
            if name != "stage" and not _is_number(value):
                raise FileError(
                    f"{where}: {quote(name)} is {quote(value)}, which is no number; remove that "
                    "line"
                )
        lines.append(line)
    return lines


def _is_number(value: Any) -> bool:
    """Whether a JSON value is a number that fits a float; NaN and infinity are."""
    return type(value) is float or (type(value) is int and abs(value) <= sys.float_info.max)


def logged(run_dir: str | os.PathLike[str], stage: str, name: str) -> dict[int, float]:
    """Values of a metric by step, for the steps of a stage that logged it, in their order.

    Raises:
      UserError: as `read_metrics`.
    """
    lines = read_metrics(run_dir)
    return {
        line["step"]: float(line[name]) for line in lines if line["stage"] == stage and name in line
    }


@contextlib.contextmanager
def progress(
    label: str, *, total: int, start: int = 0, tokens_per_step: int | None = None
) -> Iterator[Callable[..., None]]:
    """Progress display of a loop: a bar on a terminal, otherwise a plain line every tenth.

    Args:
      label: name of the loop.
      total: steps of the whole loop.
      start: steps done before.
      tokens_per_step: for tokens per second; None: not shown.

    Yields:
      `advance(done, note="")`, to be called with the number of steps done so far.
    """
    rate = _Rate(total, tokens_per_step)
    if sys.stdout.isatty():
        with _bar(label, total, start, rate) as advance:
            yield advance
        return
    shown = start * 10 // max(total, 1)

    def advance(done: int, note: str = "") -> None:
        nonlocal shown
        text = rate(done)
        if done * 10 // max(total, 1) > shown:
            shown = done * 10 // max(total, 1)
            with contextlib.suppress(OSError):  # a run goes on when nobody reads any longer
                print(f"{label}: {done}/{total} {text} {note}".rstrip(), flush=True)

    yield advance


@contextlib.contextmanager
def _bar(label: str, total: int, start: int, rate: "_Rate") -> Iterator[Callable[..., None]]:
    """Progress bar on a terminal, as `progress`."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[text]}"),
    )
    with Progress(*columns, refresh_per_second=4) as bar:
        task = bar.add_task(label, total=total, completed=start, text="")

        def advance(done: int, note: str = "") -> None:
            bar.update(task, completed=done, text=f"{rate(done)} {note}")

        yield advance


class _Rate:
    """Steps per second and time left, from the second step on (the first one compiles)."""

    def __init__(self, total: int, tokens_per_step: int | None):
        self.total, self.tokens_per_step = total, tokens_per_step
        self.first: tuple[int, float] | None = None

    def __call__(self, done: int) -> str:
        now = time.monotonic()
        if self.first is None:
            self.first = (done, now)
        seconds = now - self.first[1]
        if done == self.first[0] or seconds == 0:
            return ""
        per_second = (done - self.first[0]) / seconds
        left = (self.total - done) / per_second
        text = f"{per_second:.3g} steps/s"
        if self.tokens_per_step is not None:
            text += f", {per_second * self.tokens_per_step:,.0f} tokens/s"
        return f"{text}, {_clock(left)} left"


def _clock(seconds: float) -> str:
    """1:02:03 for 3723 seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
