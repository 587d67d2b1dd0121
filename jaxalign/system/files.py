"""Files of users, read and written safely: only regular files, bounded sizes, whole or not at all.

Every error is one line that names the file.
"""

import contextlib
import errno
import json
import os
import secrets
import shutil
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from jaxalign.errors import UserError

Kind = TypeVar("Kind")
LARGEST_TEXT = 2**28  # bytes of a JSON or text file; the largest tokenizer.json have 40 MB
SHOWN = 200  # characters of a name or value in an error
KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class FileError(UserError):
    """A file that cannot be read or written: its name, why, and what to do."""


def shown(value: Any) -> str:
    """A value for an error message: its `repr`, on one line and not too long."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**SHOWN:
        return f"a number of {SHOWN} digits or more"  # Python refuses to write the longest
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested thousands deep, or holding such a number
        return f"a {type(value).__name__} that cannot be written out"
    return text if len(text) <= SHOWN else f"{text[: SHOWN // 2]}...{text[-SHOWN // 4 :]}"


def shown_path(path: str | os.PathLike) -> str:
    """A path, or a name that stands in a file, for an error message: printable, not too long.

    >>> shown_path("runs/a")
    'runs/a'
    """
    text = os.fspath(path)
    text = text if text.isprintable() else repr(text)[1:-1]
    return text if len(text) <= SHOWN else f"{text[: SHOWN // 2]}...{text[-SHOWN // 4 :]}"


def reason(error: OSError) -> str:
    """What the system says, without number and file name: "No space left on device"."""
    return error.strerror or str(error) or type(error).__name__


def exists(path: str | os.PathLike) -> bool:
    """Whether something is there, also where the name is too long or a link leads nowhere."""
    try:
        os.lstat(path)
    except (OSError, ValueError):
        return False
    return True


def regular_file(path: str | os.PathLike, *, largest: int | None = None) -> Path:
    """The path of a file that has an end: no directory, pipe, socket or device.

    Args:
      path: links are followed.
      largest: bytes that it may have; None: any number.

    Raises:
      FileError: there is none, it is something else, or it is larger.
    """
    name = shown_path(path)
    try:
        found = os.stat(path)
    except ValueError:
        raise FileError(f"{name}: a file's name has no zero character") from None
    except FileNotFoundError:
        raise FileError(f"{name} does not exist") from None
    except OSError as error:
        raise FileError(f"{name} cannot be read: {reason(error)}") from None
    for is_kind, kind in KINDS:
        if is_kind(found.st_mode):
            raise FileError(f"{name} is {kind}; a file is needed")
    if largest is not None and found.st_size > largest:
        raise FileError(f"{name} has {found.st_size:,} bytes; at most {largest:,} are read")
    return Path(path)


def read_bytes(path: str | os.PathLike, *, largest: int = LARGEST_TEXT) -> bytes:
    """The content of a regular file of at most that many bytes.

    Raises:
      FileError: it cannot be read.
    """
    try:
        with open(regular_file(path, largest=largest), "rb", opener=_never_waiting) as file:
            content = file.read(largest + 1) or b""  # None: nothing there yet, in /proc
    except OSError as error:
        raise FileError(f"{shown_path(path)} cannot be read: {reason(error)}") from None
    if len(content) > largest:  # it grew, or is one of /proc
        raise FileError(f"{shown_path(path)} has more than {largest:,} bytes, which are not read")
    return content


def _never_waiting(path: str, flags: int) -> int:
    """A descriptor that is not waited for, also where the file has just become a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)


def read_text(path: str | os.PathLike, *, largest: int = LARGEST_TEXT) -> str:
    """The text of a regular file; a byte order mark is dropped.

    Raises:
      FileError: it cannot be read, or is no UTF-8.
    """
    try:
        return read_bytes(path, largest=largest).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FileError(f"{shown_path(path)}: no UTF-8 at byte {error.start + 1}") from None


def read_json(path: str | os.PathLike, kind: type[Kind] = dict[str, Any]) -> Kind:
    """The content of a JSON file, checked to be of a type.

    Args:
      path: of the file.
      kind: what it must hold: an object, unless another type is given (a dataclass, say).

    Raises:
      FileError: it cannot be read, is no JSON, or holds something else.
    """
    return json_of(read_text(path), kind, shown_path(path))


def json_of(text: str | bytes, kind: type[Kind], where: str) -> Kind:
    """The value that a JSON text holds, checked to be of a type.

    Raises:
      FileError: it is no JSON, an object has a name twice, or it is of another type.
    """
    try:
        content = json.loads(text, object_pairs_hook=_object)
    except RecursionError:
        raise FileError(f"{where} is not JSON: nested too deeply") from None
    except ValueError as error:
        raise FileError(f"{where} is not JSON: {str(error)[:SHOWN]}") from None
    return typed(content, kind, where)


def typed(value: Any, kind: type[Kind], where: str) -> Kind:
    """The value as that type, nothing coerced.

    >>> typed({"layers": 2}, dict[str, int], "config.json")
    {'layers': 2}

    Raises:
      FileError: it is of another type; the message says where in it.
    """
    try:
        return msgspec.convert(value, kind, strict=True)
    except (msgspec.ValidationError, ValueError, OverflowError, RecursionError) as error:
        raise FileError(f"{where}: {str(error)[:SHOWN]}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of a name that stands twice in an object JSON readers keep one, silently."""
    found = dict(pairs)
    if len(found) < len(pairs):
        name = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"{name[:SHOWN]!r} stands there twice")
    return found


def make_directory(path: str | os.PathLike) -> Path:
    """The directory, made with its parents where it is missing.

    Raises:
      FileError: it cannot be made, or is a file.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise FileError(f"{shown_path(path)} is a file; a directory is needed") from None
    except (OSError, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else str(error)
        raise FileError(f"{shown_path(path)} cannot be made: {why}") from None
    return Path(path)


def write_atomically(path: str | os.PathLike, content: bytes | str) -> None:
    """Replace a file by a whole one: a reader sees the old or the new content, at any moment.

    Raises:
      FileError: it cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    replace_file(path, lambda temporary: _write_all(temporary, data))


def replace_file(path: str | os.PathLike, write: Callable[[Path], object]) -> None:
    """Let `write` fill a new, empty file beside `path`, then give it that name.

    The file beside has a name that nobody can foresee and is made anew, so no link is followed;
    `path` itself is replaced where it is a link. Its mode is what the user's umask says.

    Raises:
      FileError: it cannot be written, or is no file; what was there before is untouched.
    """
    path = _named(path)
    _refuse_others(path)
    with writing(path):
        temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}.tmp")
        try:
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            mode = stat.S_IMODE(os.lstat(temporary).st_mode)
            write(temporary)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            os.chmod(temporary, mode)  # a library may have put a file of its own there
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def _named(path: str | os.PathLike) -> Path:
    """A path that ends with a name, so that something can stand beside it."""
    if not Path(path).name or "\0" in os.fspath(path):
        raise FileError(f"{shown_path(path)!r} is no name that can be written to")
    return Path(path)


def _refuse_others(path: Path) -> None:
    """Of a pipe or a device (`/dev/null`, `/dev/stdout`) the name must not be given to a file."""
    try:
        found = os.stat(path)
    except OSError:  # nothing, or a link to nothing
        return
    for is_kind, kind in KINDS:
        if is_kind(found.st_mode):
            raise FileError(f"{shown_path(path)} is {kind}; give the name of a file")


@contextlib.contextmanager
def whole_directory(path: str | os.PathLike) -> Iterator[Path]:
    """A new directory beside `path`, which takes that name when all is written into it.

    `path` may be an empty directory. The one beside has a name that nobody can foresee.

    Raises:
      FileError: it cannot be written; nothing is left of it.
    """
    path = _named(path)
    with writing(path):
        aside = path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}.tmp")
        try:
            aside.mkdir()  # never one that is there
            yield aside
            aside.replace(path)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def writing(path: str | os.PathLike) -> Iterator[None]:
    """Turns what the system refuses while `path` is written into one line.

    Raises:
      FileError: says what could not be written, why, and how to go on.
    """
    try:
        yield
    except OSError as error:
        raise FileError(
            f"{shown_path(path)} could not be written: {reason(error)}; {remedy(error)}"
        ) from None


def remedy(error: OSError) -> str:
    """What to do before the same command is run again."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "make room and run the same command again"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "give a place that you may write to"
    return "mend that and run the same command again"


def _write_all(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
