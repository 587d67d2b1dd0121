"""What trials share that start the program in processes of its own: runs, moments, results."""

from collections.abc import Callable

from benchmarks.hostile.base import command, loop, rounds
from benchmarks.hostile.judge import Fault, tail, whole
from benchmarks.hostile.trial import Process, Room


def arguments(room: Room, name: str, steps: int, run_dir: str = "run", **files: str) -> list[str]:
    """A whole command line with so many steps (rounds), saved six times."""
    given = command(name, room.base, run_dir=run_dir, **files)
    section = "" if name == "sft" else f"{name}."
    cut = next(i for i, word in enumerate(given) if word.startswith(f"--{section}fit.")
               or word.startswith(f"--{section}iterations"))  # fmt: skip
    every = str(max(1, steps // 6))
    online = name in ("ppo", "grpo")
    last = (
        rounds(name, steps, save_every=every) if online else loop(section, steps, save_every=every)
    )
    return [*given[:cut], *last]


def lines(room: Room, run_dir: str = "run") -> int:
    """Lines of metrics of a run."""
    file = room.path / run_dir / "metrics.jsonl"
    try:
        return file.read_bytes().count(b"\n")
    except OSError:
        return 0


def model_of(room: Room, run_dir: str = "run") -> bytes:
    """The weights that a run has saved.

    Raises:
      Fault: there are none.
    """
    file = room.path / run_dir / "model" / "model.safetensors"
    if not file.exists():
        raise Fault("lost", "exit status 0 and no model")
    return file.read_bytes()


def uninterrupted(room: Room, name: str, steps: int) -> bytes:
    """The weights of such a run that nothing happened to, made once in a worker."""

    def make() -> bytes:
        ending = room.start(*arguments(room, name, steps, "whole")).ending()
        whole(ending)
        assert ending.status == 0, ending.err
        return model_of(room, "whole")

    return room.unharmed(f"whole {name} {steps}", make)


def goes_on(room: Room, name: str, steps: int) -> None:
    """The same command again ends with the bits of the uninterrupted run.

    Raises:
      Fault: it does not.
    """
    ending = room.start(*arguments(room, name, steps)).ending()
    whole(ending)
    if ending.status:
        raise Fault("lost", f"cannot be gone on with: status {ending.status}: {tail(ending.err)}")
    if model_of(room) != uninterrupted(room, name, steps):
        raise Fault("lost", "another model than without the interruption")


def moment(room: Room, name: str, process: Process) -> None:
    """Wait for a moment of a run: `load`, `first`, `loop`, `late`, `report`."""
    folder = room.path / "run"
    happened: dict[str, Callable[[], object]] = {
        "start": lambda: True,
        "load": lambda: process.age() > 0.4,
        "first": lambda: (folder / "config.json").exists(),
        "loop": lambda: lines(room) >= 3,
        "late": lambda: lines(room) >= 60,
        "saved": lambda: any((folder / "checkpoints").glob("*/*")),
        "model": lambda: (folder / "model").exists(),
        "report": lambda: (folder / "results.json").exists(),
    }
    process.until(happened[name])
