"""The directory of a run, locked for one process at a time."""

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxalign.data.templates import fixed_template_date
from jaxalign.errors import UserError
from jaxalign.recipes.going_on import files_of
from jaxalign.recipes.inputs import read_inputs, started
from jaxalign.recipes.run import has_saved
from jaxalign.system.console import tell
from jaxalign.system.files import make_directory, quote, short_path, writing
from jaxalign.system.signals import say
from jaxalign.train.checkpoints import plain

LOCK = ".lock"
# names of what runs write, and what a kill leaves of it
OWN = re.compile(
    r"(config|inputs|versions|results|samples|timing|trackers)\.json|(metrics|samples)\.jsonl"
    r"|report\.html|learning_curve\.png|skipped_rows_.*\.txt|models?|adapter|checkpoints|plots"
    r"|tensorboard|wandb|\.lock|\..*\.[0-9a-f]{16}\.(tmp|old)|\.rows-.*",
    re.DOTALL,
)
PATIENCE = 2.0  # seconds; a large process that was killed takes a while to be gone
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
LONGEST = 3_500  # bytes of a path: the system takes 4,096, and files lie below it


def directory_of(given: str) -> Path:
    """Path of a run directory as the user gives it; `~` is their home.

    >>> directory_of("runs/a")
    PosixPath('runs/a')

    Raises:
      UserError: it could not be one on this machine.
    """
    name = short_path(given)
    if not given or given.startswith("--"):
        raise UserError(f"--output {name!r} is no directory; give one, such as runs/first")
    if "\0" in given:
        raise UserError(f"--output {name}: a directory's name has no zero character")
    if ADDRESS.match(given):
        raise UserError(
            f"--output {name} is an address; runs are written to a directory of this machine "
            "(one that is mounted there will do)"
        )
    try:
        given.encode()
        directory = Path(given).expanduser()
    except (UnicodeEncodeError, RuntimeError) as error:
        why = "is not UTF-8" if isinstance(error, UnicodeEncodeError) else str(error)
        raise UserError(f"--output {given.encode(errors='replace').decode()}: {why}") from None
    if len(os.fsencode(directory.absolute())) > LONGEST:
        raise UserError(f"--output {name} is too long; give one of at most {LONGEST:,} bytes")
    with plain(directory.absolute()):  # or its checkpoints could not be kept
        pass
    return directory


@contextlib.contextmanager
def locked_directory(directory: Path) -> Iterator[None]:
    """Context in which a run directory is locked for this process and templates have its run's
    date. It is made where it is missing, and removed again where nothing was written.

    Raises:
      UserError: another process does, or nothing can be written there.
    """
    new = [path for path in (directory, *directory.parents) if not path.exists()]
    make_directory(directory)
    lock = _locked(directory / LOCK)
    try:
        with fixed_template_date(started(directory)):
            yield
    finally:
        with contextlib.suppress(OSError):  # not empty, or removed by somebody
            (directory / LOCK).unlink()
            for path in new:
                path.rmdir()
        os.close(lock)


@contextlib.contextmanager
def set_aside(directory: Path, config: Any) -> Iterator[None]:
    """Context in which a run directory is gone, so that another run may begin there.

    It is renamed as a whole; at the end `settle` removes it or puts it back.

    Args:
      directory: of a run, or none.
      config: of the new run.

    Raises:
      UserError: the directory holds no run, or other files too, or what the new one reads, or
        another process uses it.
    """
    if not directory.is_dir() or not any(directory.iterdir()):
        yield
        return
    place, aside = directory.resolve(), _moved_aside(directory, config)
    place.mkdir()  # to which a link may lead
    tell(f"{short_path(directory)}: the run there is {aside.name} until the new one has saved")
    try:
        yield
    finally:
        settle(directory)


def settle(directory: Path) -> None:
    """Remove the run that was set aside for another one which has saved something since, or put it
    back where that has not: it may have been killed.

    Raises:
      UserError: another process uses the directory.
    """
    place = directory.resolve()
    aside = max(_set_aside(place), key=os.path.getmtime, default=None)
    if aside is None:
        return
    lock = _locked(make_directory(place) / LOCK)
    try:
        if has_saved(place):
            shutil.rmtree(aside, ignore_errors=True)
            (place / LOCK).unlink(missing_ok=True)
        elif aside.is_dir():  # else another process was faster
            unsaved = place.with_name(f".{place.name}.{secrets.token_hex(8)}.tmp")
            with writing(place):
                place.rename(unsaved)
                aside.rename(place)
            shutil.rmtree(unsaved, ignore_errors=True)
            tell(f"{short_path(directory)}: the run before is back: the new one saved nothing")
    finally:
        os.close(lock)


def _set_aside(place: Path) -> list[Path]:
    """Runs that were set aside for others at a place."""
    try:
        beside = list(place.parent.iterdir())
    except OSError:
        return []
    name = re.compile(rf"\.{re.escape(place.name)}\.[0-9a-f]{{8}}\.old")
    return [path for path in beside if name.fullmatch(path.name)]


def _moved_aside(directory: Path, config: Any) -> Path:
    """Place of a run directory that was renamed; arguments and errors of `set_aside`."""
    name = short_path(directory)
    if read_inputs(directory) is None:
        raise UserError(
            f"{name} holds no run, and --overwrite removes nothing else; give another --output"
        )
    if others := sorted(path.name for path in directory.iterdir() if not OWN.fullmatch(path.name)):
        raise UserError(
            f"{name} holds {quote(others[0])} beside its run, and --overwrite would remove it; "
            "move it, or give another --output"
        )
    place = directory.resolve()
    for option, path in files_of(config):
        run = path.rpartition("@")[0] or path  # of a checkpoint, RUN@STEP
        if any(Path(name).expanduser().resolve().is_relative_to(place) for name in (path, run)):
            raise UserError(
                f"--{option} {path} lies in {name}, which --overwrite removes; give another "
                "--output"
            )
    lock = _locked(directory / LOCK)
    try:
        aside = place.with_name(f".{place.name}.{secrets.token_hex(4)}.old")
        with writing(place):
            place.rename(aside)
        (aside / LOCK).unlink()
    finally:
        os.close(lock)
    return aside


def _locked(path: Path) -> int:
    """File descriptor of a lock, which the system releases when this process ends."""
    patience = time.monotonic() + PATIENCE
    while True:
        with writing(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = os.read(descriptor, 300).decode(errors="replace").strip()
            os.close(descriptor)
            if time.monotonic() < patience:
                time.sleep(0.05)
                continue
            raise UserError(
                f"{short_path(path.parent)} is in use by process {who if who.isprintable() else ''}"
                "; wait for its end, or give another --output"
            ) from None
        except OSError as error:
            say(f"{short_path(path)}: no lock here ({error.strerror}); start no other run in it")
        if _is_in_place(path, descriptor):
            with contextlib.suppress(OSError):
                os.truncate(descriptor, 0)
                os.write(descriptor, f"{os.getpid()} on {socket.gethostname()}\n".encode())
            return descriptor
        os.close(descriptor)  # whoever held it removed it meanwhile


def _is_in_place(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
