"""Metrics of a run on disk: JSON lines, TensorBoard events."""

import logging
import os
import secrets
import struct
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from jaxalign.system.files import FileError, make_directory, quote, writing
from jaxalign.train.lines import LinesWriter, read_lines
from jaxalign.train.trackers import Tracker


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
        self._lines = LinesWriter(self.directory / "metrics.jsonl", _check_numbers)
        self._lines.reopen()
        self._events: dict[str, Any] = {}

    def resume(self, stage: str, step: int) -> None:
        """Drop the lines of `stage` after `step` (all of them for step 0): they will come again."""
        self._lines.resume(stage, step)
        self._events[stage] = self._open_events(stage, purge_step=step + 1)

    def write(self, stage: str, step: int, metrics: Mapping[str, Any]) -> None:
        """Append the numbers of one step; they are on disk when this returns.

        Raises:
          FileError: they cannot be written, or the file is no longer in its place.
        """
        numbers = {name: float(value) for name, value in metrics.items()}
        line = {"stage": stage, "step": int(step), "time": round(time.time(), 3), **numbers}
        self._lines.write([line])
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
        self._lines.close()
        with writing(self.directory / "tensorboard"):
            for events in self._events.values():
                events.close()

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


def read_metrics(run_dir: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Lines of a run's `metrics.jsonl`; an unfinished last line (a kill) is left out.

    Raises:
      UserError: a line that is not JSON of our form, with its number.
    """
    return read_lines(Path(run_dir) / "metrics.jsonl", _check_numbers)


def _check_numbers(line: Mapping[str, Any], where: str) -> None:
    """Check that all values of a line but its stage are numbers."""
    for name, value in line.items():
        if name != "stage" and not _is_number(value):
            raise FileError(
                f"{where}: {quote(name)} is {quote(value)}, which is no number; remove that line"
            )


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
