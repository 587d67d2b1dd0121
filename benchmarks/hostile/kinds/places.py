"""Places where results go: files, unwritable and full ones, links at foreseeable names."""

import functools
import os
import resource
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.hostile.base import Base, command, loop
from benchmarks.hostile.judge import Fault, either, refused, worked
from benchmarks.hostile.processes import model_of, uninterrupted
from benchmarks.hostile.trial import Room, Trial

KIND = "places"
NOWHERE = {
    "file": "taken",
    "below_file": "taken/run",
    "proc": "/proc/nowhere",
    "sys": "/sys/nowhere/run",
    "below_null": "/dev/null/run",  # never /dev/null itself: a file there would be replaced
    "long": "x" * 300,
    "very_long": "x" * 5000,
    "zero": "a\0b",
    "loop": "loop",
    "below_loop": "loop/run",
    "dangling": "dangling",
}
OUTPUTS = {
    "evaluate": ("--output", "measures.json"),
    "explain": ("--output", "page.html"),
    "export": ("--output", "folder"),
}
NOBODY = 65534
LIMITS = (0, 100, 2_000, 8_000, 20_000, 40_000, 80_000, 120_000, 200_000)


def trials(base: Base, seed: int) -> Iterator[Trial]:
    """Run directories and outputs of all commands that write."""
    for name, place in NOWHERE.items():
        for what in ("sft", "ratings"):
            yield _trial(f"{what}_{name}", nowhere, what=what, place=place)
        for what in OUTPUTS:
            yield _trial(f"{what}_output_{name}", no_output, what=what, place=place)
        yield _trial(f"reference_logps_{name}", no_logps, place=place)
    yield _trial("export_into_a_full_folder", export_taken)
    yield _trial("report_in_a_directory_of_links", report_links)
    yield _trial("modes_are_alike", modes)
    for file in ("config.json", "metrics.jsonl", "report.html", "results.json", "versions.json"):
        yield _trial(f"link_at_{file}", link_at, file=file)
        yield _trial(f"directory_at_{file}", directory_at, file=file)
    for size in LIMITS:
        yield _alone(f"full_after_{size}", full, size=size)
        yield _alone(f"full_later_{size}", full_later, size=size)
    for moment in ("first", "later"):
        yield _alone(f"removed_{moment}", removed, moment=moment)
        yield _alone(f"checkpoints_removed_{moment}", removed, moment=moment, below="checkpoints")
    yield _alone("not_mine", not_mine)
    yield _alone("predictable_links", predictable_links)
    yield _alone("predictable_links_of_export", export_links)


def _trial(name: str, act: Callable[..., str], /, **settings: Any) -> Trial:
    return Trial(kind=KIND, name=name, act=functools.partial(act, **settings))


def _alone(name: str, act: Callable[..., str], /, **settings: Any) -> Trial:
    return Trial(kind=KIND, name=name, act=functools.partial(act, **settings), alone=True)


def prepared(room: Room) -> None:
    """A file, a loop of links, and a link to nothing."""
    room.write("taken", "mine")
    (room.path / "loop").symlink_to("loop")
    (room.path / "dangling").symlink_to("/no/such/place/at/all")


def named(place: str) -> tuple[str, ...]:
    """Words that a clear line may name that place by."""
    if "\0" in place:
        return ("x00",)  # as it is shown
    above = place.rpartition("/")[0] or place  # what cannot be made may be what is above it
    return place[:30], above[:30], "output", "reference_logps"


def nowhere(room: Room, *, what: str, place: str) -> str:
    """A run directory that cannot be."""
    prepared(room)
    if what == "ratings":
        done = refused(room.call("ratings", "--output", place, "--pairs", "5"), *named(place))
    else:
        done = refused(room.call(*command("sft", room.base, run_dir=place)), *named(place))
    if (room.path / "taken").read_text() != "mine":
        raise Fault("lost", "the file was overwritten")
    return done


def no_output(room: Room, *, what: str, place: str) -> str:
    """An output that cannot be written, or is somebody's."""
    prepared(room)
    base = room.base
    arguments = {
        "evaluate": ["evaluate", "--model", base.policy, "--data.path", base.short],
        "explain": ["explain", "--policy", base.policy, "--data.path", base.pairs, "--rows", "2"],
        "export": ["export", "--model", base.policy],
    }[what]
    target = "taken" if what == "export" and place == "taken" else place
    ending = room.call(*arguments, "--output", target)
    if place in ("taken", "dangling", "loop") and what != "export":
        return either(ending, lambda: None, *named(place))  # a file there may be replaced
    return refused(ending, *named(place))


def no_logps(room: Room, *, place: str) -> str:
    """A folder for log-probabilities that cannot be."""
    prepared(room)
    arguments = command("dpo", room.base)
    return refused(room.call(*arguments, "--reference_logps", place), *named(place))


def export_taken(room: Room) -> str:
    """A folder with something in it."""
    room.write("out/mine.txt", "mine")
    done = refused(room.call("export", "--model", room.base.policy, "--output", "out"), "out")
    if sorted(path.name for path in (room.path / "out").iterdir()) != ["mine.txt"]:
        raise Fault("lost", "something was written into it")
    return done


def report_links(room: Room) -> str:
    """`report` where its outputs are links to somebody's file."""
    shutil.copytree(room.base.policy, room.path / "run")
    victim = Path(room.write("victim", "mine"))
    for name in ("report.html", "plots/sft.png"):
        path = room.path / "run" / name
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(victim)
    ending = room.call("report", "run")
    untouched(victim)
    return either(ending, lambda: None, "report.html", "plots")


def untouched(victim: Path) -> None:
    """The file is what it was.

    Raises:
      Fault: it is not.
    """
    if victim.read_text() != "mine":
        raise Fault("lost", "a file that a link names was overwritten")


def modes(room: Room) -> str:
    """Files beside each other have one mode, that of the umask."""
    worked(room.call(*command("sft", room.base)))
    worked(room.call("export", "--model", "run", "--output", "out"))
    files = [*(room.path / "run").glob("*.*"), *(room.path / "run" / "model").iterdir(),
             *(room.path / "out").iterdir()]  # fmt: skip
    umask = os.umask(0o022)
    os.umask(umask)
    wrong = {str(file.relative_to(room.path)): oct(stat.S_IMODE(file.stat().st_mode))
             for file in files if file.is_file()
             and stat.S_IMODE(file.stat().st_mode) != 0o666 & ~umask}  # fmt: skip
    if wrong:
        raise Fault("silent", f"other modes than the umask gives: {wrong}")
    return "right"


def link_at(room: Room, *, file: str) -> str:
    """A file of the run is a link to somebody's."""
    victim = Path(room.write("victim", "mine"))
    (room.path / "run").mkdir()
    (room.path / "run" / file).symlink_to(victim)
    ending = room.call(*command("sft", room.base))
    untouched(victim)
    return either(ending, lambda: None, file)


def directory_at(room: Room, *, file: str) -> str:
    """A directory stands where a file of the run goes."""
    (room.path / "run" / file).mkdir(parents=True)
    return refused(room.call(*command("sft", room.base)), file)


def sft(room: Room, steps: int = 40) -> list[str]:
    """A run of more steps."""
    arguments = command("sft", room.base)
    cut = arguments.index("--fit.steps")
    return [*arguments[:cut], *loop(steps=steps, save_every=str(max(1, steps // 10)))]


def limited(size: int) -> Callable[[], object]:
    """No file may become larger: what a full disk does to a write."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def goes_on(room: Room, done: str, steps: int = 40) -> str:
    """With room again, the same command ends well.

    Raises:
      Fault: it does not.
    """
    ending = room.start(*sft(room, steps)).ending()
    if ending.status:
        raise Fault("lost", f"with room again: status {ending.status}: {ending.err[-300:]}")
    return done


def full(room: Room, *, size: int) -> str:
    """The disk is full from the start."""
    ending = room.start(*sft(room), before=limited(size)).ending()
    if ending.status == 0 and model_of(room) == uninterrupted(room, "sft", 40):
        return worked(ending)  # all files were smaller
    return goes_on(room, refused(ending, "write", "large", "space", "room"))


def full_later(room: Room, *, size: int) -> str:
    """The disk becomes full while it runs."""

    def before() -> None:
        import threading

        def watch() -> None:
            import time

            while not lines(room):
                time.sleep(0.002)
            limited(size)()

        threading.Thread(target=watch, daemon=True).start()

    ending = room.start(*sft(room), before=before).ending()
    if ending.status == 0:
        return worked(ending)  # it was quicker, or the files were small
    return goes_on(room, refused(ending, "write", "large", "space", "room"))


def lines(room: Room) -> int:
    """Lines of metrics of the run."""
    file = room.path / "run" / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def removed(room: Room, *, moment: str, below: str = "") -> str:
    """Somebody removes the directory while it runs."""
    process = room.start(*sft(room, 400))
    wanted = 1 if moment == "first" else 40
    process.until(lambda: lines(room) >= wanted)
    shutil.rmtree(room.path / "run" / below, ignore_errors=True)
    ending = process.ending()
    if ending.status == 0:
        if not (room.path / "run" / "model" / "model.safetensors").exists():
            raise Fault("lost", "exit status 0 and no model")
        return worked(ending)
    return refused(ending, "run")


def not_mine(room: Room) -> str:
    """A directory of another user."""
    room.path.chmod(0o755)
    (room.path / "run").mkdir(mode=0o755)

    def before() -> None:
        os.setegid(NOBODY)
        os.seteuid(NOBODY)

    return refused(room.start(*command("sft", room.base), before=before).ending(), "run")


def predictable_links(room: Room) -> str:
    """Links at the names that temporary files could be foreseen to have."""
    victim = Path(room.write("victim", "mine"))

    def before() -> None:
        names = ("config.json", "versions.json", "results.json", "metrics.jsonl", "report.html")
        inner = ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json")
        for folder, files in (("run", names), ("run/model", inner)):
            Path(folder).mkdir(exist_ok=True)
            for file in files:
                for name in spellings(file, os.getpid()):
                    os.symlink(victim, Path(folder) / name)

    ending = room.start(*command("sft", room.base), before=before).ending()
    untouched(victim)
    return either(ending, lambda: None, "run")


def export_links(room: Room) -> str:
    """The same for the outputs of `evaluate` and `explain`."""
    victim = Path(room.write("victim", "mine"))

    def before() -> None:
        for name in spellings("measures.json", os.getpid()):
            os.symlink(victim, name)

    arguments = ["evaluate", "--model", room.base.policy, "--data.path", room.base.short]
    ending = room.start(*arguments, "--output", "measures.json", before=before).ending()
    untouched(victim)
    return worked(ending)


def spellings(file: str, pid: int) -> list[str]:
    """Names of temporary files that can be foreseen."""
    return [f".{file}.{pid}", f"{file}.tmp", f".{file}.tmp", f"{file}.{pid}.tmp", f"{file}.partial",
            f".{file}.{pid}.tmp", f"{file}~", f"tmp_{file}"]  # fmt: skip
