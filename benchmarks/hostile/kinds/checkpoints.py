"""Damage in the newest checkpoint: it is noticed, and the one before is used, to the same bits."""

import functools
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.hostile.base import Base, command, loop
from benchmarks.hostile.judge import Ending, Fault, refused, tail, whole, worked
from benchmarks.hostile.trial import Room, Trial

KIND = "checkpoints"
STEPS = 6
BY_SIZE, BY_FILE = 32, 24  # flipped bytes, drawn over all bytes and over all files


def trials(base: Base, seed: int) -> Iterator[Trial]:
    """Flips, truncations, files and directories that are missing, renamed or of another run."""
    chance = random.Random(f"{KIND} {seed}")
    for number in range(BY_SIZE + BY_FILE):
        settings = {"place": chance.random(), "inner": chance.random(), "bit": chance.randrange(8)}
        how = functools.partial(flip, by_size=number < BY_SIZE, **settings)
        yield _trial(f"flip_{number}", damaged, harm=how)
    for number in range(12):
        how = functools.partial(truncate, place=chance.random(), share=chance.choice((0.0, 0.5)))
        yield _trial(f"truncated_{number}", damaged, harm=how)
    for number in range(12):
        yield _trial(
            f"missing_{number}", damaged, harm=functools.partial(remove, place=chance.random())
        )
    for name, harm in HARMS.items():
        yield _trial(name, damaged, harm=harm)
    for name, harm in BESIDE.items():
        yield _trial(f"beside_{name}", beside, harm=harm)
    yield _trial("both_damaged", both_damaged)


def _trial(name: str, act: Callable[..., str], /, **settings: Any) -> Trial:
    return Trial(kind=KIND, name=name, act=functools.partial(act, **settings))


def arguments(room: Room, run_dir: str = "run") -> list[str]:
    """A run that keeps its last two steps."""
    given = command("sft", room.base, run_dir=run_dir)
    return [*given[: given.index("--fit.steps")], *loop(steps=STEPS)]


def finished(room: Room) -> Path:
    """A copy of a finished run, made once in a process."""

    def make() -> Path:
        kept = Path(room.base.work) / f"finished-{room.path.name}"
        worked(room.call(*arguments(room)))
        shutil.move(room.path / "run", kept)
        return kept

    kept = room.unharmed("finished", make)
    shutil.copytree(kept, room.path / "run")
    return room.path / "run"


def steps_of(run: Path) -> dict[int, Path]:
    """The directories of checkpoints, by step."""
    found = [path for path in (run / "checkpoints").rglob("*") if path.is_dir()]
    return {int(path.name): path for path in found if path.name.isdigit()}


def files_of(run: Path) -> list[Path]:
    """All files of the newest checkpoint that hold something."""
    newest = steps_of(run)[STEPS]
    return sorted(path for path in newest.rglob("*") if path.is_file() and path.stat().st_size)


def flip(run: Path, *, by_size: bool, place: float, inner: float, bit: int) -> str:
    """One bit of one byte turned over."""
    files = files_of(run)
    if by_size:
        sizes = [file.stat().st_size for file in files]
        at = int(place * sum(sizes))
        while at >= sizes[0]:
            at, sizes, files = at - sizes[0], sizes[1:], files[1:]
        file = files[0]
    else:
        file = files[int(place * len(files))]
        at = int(inner * file.stat().st_size)
    content = bytearray(file.read_bytes())
    content[at] ^= 1 << bit
    file.write_bytes(content)
    return f"byte {at} of {file.relative_to(run)}"


def truncate(run: Path, *, place: float, share: float) -> str:
    """A file cut off, or emptied."""
    files = files_of(run)
    file = files[int(place * len(files))]
    with file.open("r+b") as opened:
        opened.truncate(int(share * file.stat().st_size))
    return f"{file.relative_to(run)} cut to {share}"


def remove(run: Path, *, place: float) -> str:
    """A file removed."""
    files = files_of(run)
    file = files[int(place * len(files))]
    file.unlink()
    return f"{file.relative_to(run)} removed"


def emptied(run: Path) -> str:
    """A directory with nothing in it."""
    newest = steps_of(run)[STEPS]
    shutil.rmtree(newest)
    newest.mkdir()
    return "emptied"


def a_file(run: Path) -> str:
    """A file instead of the directory."""
    newest = steps_of(run)[STEPS]
    shutil.rmtree(newest)
    newest.write_text("x")
    return "a file in its place"


def renamed_later(run: Path) -> str:
    """Its directory says another step."""
    newest = steps_of(run)[STEPS]
    newest.rename(newest.with_name(str(STEPS + 3)))
    return f"renamed to {STEPS + 3}"


def older_as_newer(run: Path) -> str:
    """The step before under the name of the newest."""
    steps = steps_of(run)
    shutil.rmtree(steps[STEPS])
    shutil.copytree(steps[STEPS - 1], steps[STEPS])
    return f"step {STEPS - 1} named {STEPS}"


def all_zero(run: Path) -> str:
    """Every file of the newest full of zeros."""
    for file in files_of(run):
        file.write_bytes(bytes(file.stat().st_size))
    return "zeros"


HARMS: dict[str, Callable[[Path], str]] = {
    "emptied": emptied,
    "a_file": a_file,
    "renamed_later": renamed_later,
    "older_as_newer": older_as_newer,
    "all_zero": all_zero,
}


def empty_future(run: Path) -> str:
    """An empty directory of a step that was never made."""
    (steps_of(run)[STEPS].parent / "999").mkdir()
    return "999"


def foreign_names(run: Path) -> str:
    """Files and directories of other names."""
    folder = steps_of(run)[STEPS].parent
    (folder / "notes.txt").write_text("mine")
    (folder / "backup").mkdir()
    (folder / "6.bak").mkdir()
    (folder / ".DS_Store").write_text("x")
    return "notes.txt"


def older_damaged(run: Path) -> str:
    """The one before the newest is damaged, which is not read."""
    for file in steps_of(run)[STEPS - 1].rglob("*"):
        if file.is_file():
            file.write_bytes(b"x")
    return "older"


BESIDE: dict[str, Callable[[Path], str]] = {
    "empty_future": empty_future,
    "foreign_names": foreign_names,
    "older_damaged": older_damaged,
}


def damaged(room: Room, *, harm: Callable[[Path], str]) -> str:
    """The same command again says so and ends with the same model."""
    what, ending = again(room, harm)
    if "checkpoint" not in f"{ending.out} {ending.err}".replace(str(room.path), "").lower():
        raise Fault("silent", f"{what}: not noticed")
    return "right"


def beside(room: Room, *, harm: Callable[[Path], str]) -> str:
    """What does not belong to the newest does no harm."""
    again(room, harm)
    return "right"


def again(room: Room, harm: Callable[[Path], str]) -> tuple[str, Ending]:
    """What was done to a finished run, and how the same command ends, with the same model."""
    run = finished(room)
    before = (run / "model" / "model.safetensors").read_bytes()
    what = harm(run)
    ending = room.call(*arguments(room))
    whole(ending)
    if ending.status:
        raise Fault("refused", f"{what}: status {ending.status}: {tail(ending.err)}")
    if (run / "model" / "model.safetensors").read_bytes() != before:
        raise Fault("lost", f"{what}: exit status 0 and another model")
    return what, ending


def both_damaged(room: Room) -> str:
    """No good one is left: said in a line, and nothing is overwritten; or begun anew, and said."""
    run = finished(room)
    before = (run / "model" / "model.safetensors").read_bytes()
    for folder in steps_of(run).values():
        for file in folder.rglob("*"):
            if file.is_file():
                file.write_bytes(b"x" * file.stat().st_size)
    ending = room.call(*arguments(room))
    if ending.status:
        return refused(ending, "checkpoint")
    if (run / "model" / "model.safetensors").read_bytes() != before:
        raise Fault("lost", "exit status 0 and another model")
    return worked(ending)
