"""Safe reading and atomic writing of users' files: regular files of bounded size only.

Every error is one line that names the file.
"""

import contextlib
import errno
import json
import os
import re
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
LEFT = re.compile(r"[0-9a-f]{16}\.(tmp|old)")  # ends of names that a kill leaves behind
SHOWN = 200  # characters of a name or value in an error
KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class FileError(UserError):
    """A file that cannot be read or written: its name, the reason, the remedy."""


def quote(value: Any) -> str:
    """`repr` of a value for an error message, on one line and at most `SHOWN` characters."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**SHOWN:
        return f"a number of {SHOWN} digits or more"  # Python refuses to write the longest
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested thousands deep, or holding such a number
        return f"a {type(value).__name__} that cannot be written out"
    return text if len(text) <= SHOWN else f"{text[: SHOWN // 2]}...{text[-SHOWN // 4 :]}"


def short_path(path: str | os.PathLike) -> str:
    """Printable form of a path or name for an error message, at most `SHOWN` characters.

    >>> short_path("runs/a")
    'runs/a'
    """
    text = os.fspath(path)
    text = text if text.isprintable() else repr(text)[1:-1]
    return text if len(text) <= SHOWN else f"{text[: SHOWN // 2]}...{text[-SHOWN // 4 :]}"


def reason(error: OSError) -> str:
    """The system's message without number and file name: "No space left on device"."""
    return error.strerror or str(error) or type(error).__name__


def exists(path: str | os.PathLike) -> bool:
    """Whether a path names a file, a directory or a link, also a broken one."""
    try:
        os.lstat(path)
    except (OSError, ValueError):
        return False
    return True


def regular_file(path: str | os.PathLike, *, largest: int | None = None) -> Path:
    """Path of a regular file, checked to be no directory, pipe, socket or device.

    Args:
      path: links are followed.
      largest: maximum size in bytes; None: any.

    Raises:
      FileError: there is no such file, it is not a regular one, or it is larger.
    """
    name = short_path(path)
    try:
        status = os.stat(path)
    except ValueError:
        raise FileError(f"{name}: a file's name has no zero character") from None
    except FileNotFoundError:
        raise FileError(f"{name} does not exist") from None
    except OSError as error:
        raise FileError(f"{name} cannot be read: {reason(error)}") from None
    for is_kind, kind in KINDS:
        if is_kind(status.st_mode):
            raise FileError(f"{name} is {kind}; a file is needed")
    if largest is not None and status.st_size > largest:
        raise FileError(f"{name} has {status.st_size:,} bytes; at most {largest:,} are read")
    return Path(path)


def read_bytes(path: str | os.PathLike, *, largest: int = LARGEST_TEXT) -> bytes:
    """Content of a regular file of at most `largest` bytes.

    Raises:
      FileError: it cannot be read.
    """
    try:
        with open(regular_file(path, largest=largest), "rb", opener=_open_without_waiting) as file:
            content = file.read(largest + 1) or b""  # None: nothing there yet, in /proc
    except OSError as error:
        raise FileError(f"{short_path(path)} cannot be read: {reason(error)}") from None
    if len(content) > largest:  # it grew, or is one of /proc
        raise FileError(f"{short_path(path)} has more than {largest:,} bytes, which are not read")
    return content


def _open_without_waiting(path: str, flags: int) -> int:
    """File descriptor opened without blocking, also where the file has just become a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)


def read_text(path: str | os.PathLike, *, largest: int = LARGEST_TEXT) -> str:
    """Text of a regular UTF-8 file, without its byte order mark.

    Raises:
      FileError: it cannot be read, or is no UTF-8.
    """
    try:
        return read_bytes(path, largest=largest).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FileError(f"{short_path(path)}: no UTF-8 at byte {error.start + 1}") from None


def read_json(path: str | os.PathLike, kind: type[Kind] = dict[str, Any]) -> Kind:
    """Content of a JSON file, validated against a type.

    Args:
      path: of the file.
      kind: type of the content: an object, unless another type is given (a dataclass, say).

    Raises:
      FileError: it cannot be read, is no JSON, or holds something else.
    """
    return json_of(read_text(path), kind, short_path(path))


def json_of(text: str | bytes, kind: type[Kind], where: str) -> Kind:
    """Value of a JSON text, validated against a type.

    Args:
      text: JSON.
      kind: type of the value.
      where: name of the source, for messages.

    Raises:
      FileError: it is no JSON, an object has a name twice, or it is of another type.
    """
    try:
        content = json.loads(text, object_pairs_hook=_object_without_duplicates)
    except RecursionError:
        raise FileError(f"{where} is not JSON: nested too deeply") from None
    except ValueError as error:
        raise FileError(f"{where} is not JSON: {str(error)[:SHOWN]}") from None
    return as_type(content, kind, where)


def as_type(value: Any, kind: type[Kind], where: str) -> Kind:
    """A decoded JSON value as a type, validated without coercion.

    Args:
      value: of JSON types.
      kind: to convert it to: built-in containers, a dataclass.
      where: name of the source, for messages.

    >>> as_type({"layers": 2}, dict[str, int], "config.json")
    {'layers': 2}

    Raises:
      FileError: it is of another type; the message says where in it.
    """
    try:
        return msgspec.convert(value, kind, strict=True)
    except (msgspec.ValidationError, ValueError, OverflowError, RecursionError) as error:
        raise FileError(f"{where}: {str(error)[:SHOWN]}") from None


def _object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """JSON object of these pairs; a duplicate name, of which JSON readers keep one, is an error."""
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        name = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"{name[:SHOWN]!r} stands there twice")
    return mapping


def make_directory(path: str | os.PathLike) -> Path:
    """Path of a directory, created with its parents where it is missing.

    Raises:
      FileError: it cannot be made, or is a file.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise FileError(f"{short_path(path)} is a file; a directory is needed") from None
    except (OSError, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else str(error)
        raise FileError(f"{short_path(path)} cannot be made: {why}") from None
    return Path(path)


def write_atomically(path: str | os.PathLike, content: bytes | str) -> None:
    """Replace the content of a file: a reader sees the old or the new content, at any moment.

    Raises:
      FileError: it cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    replace_file(path, lambda temporary: _write_all(temporary, data))


def replace_file(path: str | os.PathLike, write: Callable[[Path], object]) -> None:
    """Replace a file by a temporary one that `write` fills, by an atomic rename.

    The temporary file lies in the same directory under an unpredictable name and is created anew,
    so no link is followed; `path` itself is replaced where it is a link. Its mode is what the
    user's umask says.

    Args:
      path: of the file.
      write: writes the content to the path that it gets.

    Raises:
      FileError: it cannot be written, or is no file; what was there before is untouched.
    """
    path = _path_with_name(path)
    _check_regular_or_absent(path)
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


def _path_with_name(path: str | os.PathLike) -> Path:
    """The path, checked to end with a file name, so that a temporary file can lie beside it."""
    if not Path(path).name or "\0" in os.fspath(path):
        raise FileError(f"{short_path(path)!r} is no name that can be written to")
    return Path(path)


def _check_regular_or_absent(path: Path) -> None:
    """Refuse a path of a pipe or device (`/dev/null`), which a rename would replace by a file."""
    try:
        status = os.stat(path)
    except OSError:  # nothing, or a link to nothing
        return
    for is_kind, kind in KINDS:
        if is_kind(status.st_mode):
            raise FileError(f"{short_path(path)} is {kind}; give the name of a file")


@contextlib.contextmanager
def whole_directory(path: str | os.PathLike) -> Iterator[Path]:
    """Temporary directory that is renamed to `path` when the block ends without an error.

    `path` may be an empty directory. The temporary one has an unpredictable name beside it.

    Raises:
      FileError: it cannot be written; the temporary directory is removed.
    """
    path = _path_with_name(path)
    with writing(path):
        temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}.tmp")
        try:
            temporary.mkdir()  # never one that is there
            yield temporary
            temporary.replace(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def replaced_directory(path: str | os.PathLike) -> Iterator[Path]:
    """Temporary directory that takes the place of `path` when the block ends without an error.

    What was there before is untouched until then, and gone afterwards. One process at a time may
    do this; what an earlier one left behind when it was killed is removed.

    Raises:
      FileError: it cannot be written.
    """
    path = Path(os.path.realpath(_path_with_name(path)))
    prefix = f".{path.name[:100]}."
    fresh, old = (
        path.with_name(f"{prefix}{secrets.token_hex(8)}.{kind}") for kind in ("tmp", "old")
    )
    with writing(path):
        for left in path.parent.iterdir():
            if left.name.startswith(prefix) and LEFT.fullmatch(left.name.removeprefix(prefix)):
                shutil.rmtree(left, ignore_errors=True)
        try:
            fresh.mkdir()
            yield fresh
            if os.path.lexists(path):
                path.rename(old)
            fresh.rename(path)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def writing(path: str | os.PathLike) -> Iterator[None]:
    """Context in which an `OSError` becomes a one-line `FileError` about `path`.

    Raises:
      FileError: names the file, the reason and the remedy.
    """
    try:
        yield
    except OSError as error:
        raise FileError(
            f"{short_path(path)} could not be written: {reason(error)}; {remedy(error)}"
        ) from None


def remedy(error: OSError) -> str:
    """Advice for an error message: how to mend what the system refused."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "make room and run the same command again"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "give a place that you may write to"
    return "mend that and run the same command again"


def _write_all(path: Path, content: bytes) -> None:
    """Write a whole file."""
    with path.open("wb") as file:
        file.write(content)
