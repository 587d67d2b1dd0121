"""What many kinds of trial do: copy a model, put something else in a file's place, measure."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from benchmarks.hostile.judge import Ending, Fault, worked
from benchmarks.hostile.trial import Room


def in_place_of(file: Path, what: str) -> None:
    """A directory, a pipe, a loop of links, an endless device, a huge file, or nothing."""
    if what == "directory":
        file.mkdir()
    elif what == "fifo":
        os.mkfifo(file)
    elif what == "loop":
        file.symlink_to(file.name)
    elif what == "endless":
        file.symlink_to("/dev/zero")
    elif what == "huge":
        with file.open("wb") as hole:
            hole.truncate(2**35)


def copied(room: Room, source: str, name: str = "model") -> str:
    """A copy of a model's folder in the room."""
    shutil.copytree(source, room.path / name)
    return str(room.path / name)


def measured(room: Room, model: str, output: str = "measures.json", data: str = "") -> Ending:
    """What `evaluate` does with that model on short texts."""
    data = data or room.base.short
    return room.call("evaluate", "--model", model, "--data.path", data, "--output", output)


def numbers_of(room: Room, model: str, output: str) -> dict[str, Any]:
    """The measures of a model that must be read."""
    worked(measured(room, model, output))
    return json.loads((room.path / output).read_text())


def same(room: Room, expected: dict[str, Any], output: str = "measures.json") -> None:
    """The measures are those numbers to rounding.

    Raises:
      Fault: they are others.
    """
    found = json.loads((room.path / output).read_text())
    for name, number in expected.items():
        if not abs(found.get(name, float("nan")) - number) <= 1e-6 * abs(number):
            raise Fault("silent", f"{name} is {found.get(name)}, unharmed {number}")
