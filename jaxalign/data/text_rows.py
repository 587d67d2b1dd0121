"""Rows of text files (JSON Lines, JSON, CSV), gzipped or not, one at a time.

A file is recognised by its content where its name says something else (a gzipped .jsonl, a Parquet
file called .json): it is read, or one line says what it is.
"""

import contextlib
import csv
import functools
import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from jaxalign.data.conversations import CONVERSATION
from jaxalign.data.row_fields import MAX_DEPTH, BadRow, check_depth
from jaxalign.errors import UserError
from jaxalign.system.files import LARGEST_TEXT, quote, reason, regular_file, short_path

LocatedRow = tuple[str, dict[str, Any] | BadRow]
LARGEST_ROW = 2**26  # bytes of a line
MOST_EMPTY = 100_000  # empty lines one after the other
LIST = re.compile(rb"\[\s*(\{|$)")
SPACE = re.compile(r"[ \t\n\r]*")
# What files begin with that are not what their names say, and what to do.
MAGIC = (
    (b"PAR1", "a Parquet file; call it .parquet"),
    (b"ARROW1", "an Arrow file; call it .arrow"),
    (b"\xff\xff\xff\xff", "an Arrow stream; call it .arrow"),
    (b"PK\x03\x04", "a zip archive; unpack it"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd; unpack it"),
    (b"BZh", "compressed by bzip2; unpack it"),
    (b"\xfd7zXZ", "compressed by xz; unpack it"),
    (b"\xff\xfe", "UTF-16; save it as UTF-8"),
    (b"\xfe\xff", "UTF-16; save it as UTF-8"),
    (b"version https://git-lfs", "a pointer of Git LFS; fetch the file itself: git lfs pull"),
)
CSV_FAULTS = (
    ("end of data", "a quote is not closed"),
    ("new-line character", "its lines end with \\r alone; save it with \\n"),
)
# Columns of a CSV file that hold no text: JSON stands in the cell.
CELLS = (
    *("label", "margin", "labels", "responses", "completions", "messages", "tools"),
    "chat_template_kwargs",
)


def jsonl_rows(file: Path) -> Iterator[LocatedRow]:
    """Rows of a JSON Lines file, without empty lines and byte order mark.

    Raises:
      UserError: it begins as a list of rows, which is another format.
    """
    first = True
    for number, line in _lines(file):
        if not (content := line.removeprefix(b"\xef\xbb\xbf").strip()):
            continue
        if first and LIST.match(content):
            raise UserError(f"{short_path(file)} is one JSON list; call it .json")
        first = False
        yield f"{short_path(file)}:{number}", _json_row(line)


def json_rows(file: Path) -> Iterator[LocatedRow]:
    """Rows of a JSON file: a list of objects, or an object a line."""
    number, first = next(((n, line) for n, line in _lines(file) if line.strip()), (0, b""))
    is_list = first.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"["
    if not first or (not is_list and isinstance(_json_row(first), dict)):
        return jsonl_rows(file)
    content = _content(file, "write it as JSON Lines")
    if is_list:
        return _list_rows(file, content)
    return iter([(f"{short_path(file)}:{number}", _json_row(content))])


def csv_rows(file: Path, delimiter: str) -> Iterator[LocatedRow]:
    """Rows of a CSV file whose first row names the columns; an empty cell is null.

    Raises:
      UserError: it is no CSV (a quote is not closed), or a column is named twice.
    """
    limit = csv.field_size_limit(LARGEST_ROW)
    try:
        lines = _CountedLines(_text_lines(file))
        rows = csv.reader(lines, delimiter=delimiter, strict=True)
        names = next((row for row in _table_rows(file, lines, rows) if row), [])
        if twice := [name for name, count in Counter(names).items() if name and count > 1]:
            raise UserError(f"{short_path(file)}: the column {quote(twice[0])} is named twice")
        before = lines.number
        for row in _table_rows(file, lines, rows):
            place, before = f"{short_path(file)}:{before + 1}", lines.number
            if not row:
                continue
            if len(row) != len(names):
                yield place, BadRow(f"{len(row)} cells, but {len(names)} columns are named")
            elif any("\0" in cell for cell in row):
                yield place, BadRow("a cell holds a zero character")
            else:
                cells = zip(names, row, strict=True)
                yield place, {name: cell or None for name, cell in cells if name}
    finally:
        csv.field_size_limit(limit)


def line_rows(file: Path) -> Iterator[LocatedRow]:
    """Lines of a text file, each a row `{"text"}`; empty ones are left out."""
    for number, line in _lines(file):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            fault = BadRow(f"invalid UTF-8 at byte {error.start + 1} of the line")
            yield f"{short_path(file)}:{number}", fault
            continue
        if text.strip():
            yield f"{short_path(file)}:{number}", {"text": text}


def document_rows(file: Path) -> Iterator[LocatedRow]:
    """A text file as one row `{"text"}`, without white space at its end; none of an empty one."""
    content = _content(file, "give --data.text line")
    try:
        text = content.decode("utf-8-sig").rstrip()
    except UnicodeDecodeError as error:
        yield short_path(file), BadRow(f"invalid UTF-8 at byte {error.start + 1}")
        return
    if text:
        yield short_path(file), {"text": text}


def typed_cells(row: dict[str, Any]) -> dict[str, Any]:
    """A row of texts with the JSON values that its cells spell: true, 0.5, a list of messages."""
    return {name: _cell_value(name, cell) for name, cell in row.items()}


def _cell_value(name: str, cell: Any) -> Any:
    """JSON value that a cell spells, of columns that hold no text."""
    if not isinstance(cell, str) or not (name in CELLS or CONVERSATION.match(cell)):
        return cell
    text = cell.strip()
    with contextlib.suppress(ValueError, RecursionError, BadRow):
        value = json.loads(text.lower() if text.lower() in ("true", "false") else text)
        check_depth(value)
        return value
    return cell


def _json_row(line: bytes) -> dict[str, Any] | BadRow:
    """Row of one line of JSON."""
    twice: list[str] = []
    try:
        row = json.loads(line.decode("utf-8-sig"), object_pairs_hook=_object_noting(twice))
        if twice:
            return BadRow(f"{quote(twice[0])} stands there twice")
        flat = isinstance(row, dict) and line.count(b"[") + line.count(b"{") <= MAX_DEPTH
        return row if flat else _checked_row(row)
    except UnicodeDecodeError as error:
        return BadRow(f"invalid UTF-8 at byte {error.start + 1} of the line")
    except RecursionError:
        return BadRow("invalid JSON: nested too deeply")
    except ValueError as error:
        return BadRow(f"invalid JSON: {error}")


def _checked_row(row: Any) -> dict[str, Any] | BadRow:
    """The row, if it is an object and not nested too deeply."""
    if not isinstance(row, dict):
        return BadRow(f"not an object but {type(row).__name__}")
    try:
        check_depth(row)
    except BadRow as fault:
        return fault
    return row


def _list_rows(file: Path, content: bytes) -> Iterator[LocatedRow]:
    """Rows of a JSON list of objects, decoded one at a time."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{short_path(file)}: invalid UTF-8 at byte {error.start + 1}") from None
    twice: list[str] = []
    decoder = json.JSONDecoder(object_pairs_hook=_object_noting(twice))
    at, number, end = _after_space(text, _after_space(text, 0) + 1), 0, ","
    if text[at : at + 1] == "]":
        at, end = at + 1, "]"
    while end == ",":
        number += 1
        try:
            row, at = decoder.raw_decode(text, at)
        except RecursionError:
            raise UserError(f"{short_path(file)}: row {number}: nested too deeply") from None
        except ValueError as error:
            raise UserError(f"{short_path(file)}: row {number}: invalid JSON: {error}") from None
        fault = BadRow(f"{quote(twice[0])} stands there twice") if twice else None
        twice.clear()
        yield f"{short_path(file)}: row {number}", fault or _checked_row(row)
        at = _after_space(text, at)
        end, at = text[at : at + 1], _after_space(text, at + 1)
    if end != "]" or text[at:].strip():
        raise UserError(f"{short_path(file)}: the list does not end behind row {number}")


def _after_space(text: str, at: int) -> int:
    """Position of the first character from `at` on that is no white space."""
    match = SPACE.match(text, at)
    return match.end() if match else at


def _object_noting(twice: list[str]) -> Callable[[list[tuple[str, Any]]], dict[str, Any]]:
    """Hook for JSON objects that appends a duplicate field, of which JSON readers keep one."""

    def made(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        row = dict(pairs)
        if len(row) < len(pairs):
            twice.append(Counter(name for name, _ in pairs).most_common(1)[0][0])
        return row

    return made


class _CountedLines:
    """Iterator over lines that counts them."""

    def __init__(self, lines: Iterator[str]) -> None:
        self.lines = lines
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self.lines)
        self.number += 1
        return line


def _table_rows(file: Path, lines: _CountedLines, rows: Iterator[list[str]]) -> Iterator[list[str]]:
    """Rows of a table until an error of CSV, which becomes one line with its place."""
    start = lines.number + 1
    try:
        for row in rows:
            yield row
            start = lines.number + 1
    except csv.Error as error:
        what = next((what for text, what in CSV_FAULTS if text in str(error)), str(error))
        raise UserError(f"{short_path(file)}:{start}: not readable as CSV: {what}") from None


def _text_lines(file: Path) -> Iterator[str]:
    """Lines of a UTF-8 file."""
    for number, line in _lines(file):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise UserError(
                f"{short_path(file)}:{number}: invalid UTF-8 at byte {error.start + 1} of the line"
            ) from None


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """Lines of a file with their numbers, none larger than `LARGEST_ROW`."""
    empty, number = 0, 0
    with _open_unpacked(file) as reader, _reading(file, lambda: f" after line {number}"):
        while line := reader.readline(LARGEST_ROW + 1):
            number += 1
            if len(line) > LARGEST_ROW:
                raise UserError(
                    f"{short_path(file)}:{number}: a row of more than {LARGEST_ROW:,} bytes"
                )
            empty = empty + 1 if line.isspace() else 0
            if empty > MOST_EMPTY:
                raise UserError(f"{short_path(file)}:{number}: nothing but empty lines")
            yield number, line


def _content(file: Path, advice: str) -> bytes:
    """All bytes of a file that is not too large to be read at once."""
    with _open_unpacked(file) as reader, _reading(file):
        content = reader.read(LARGEST_TEXT + 1)
    if len(content) > LARGEST_TEXT:
        raise UserError(f"{short_path(file)} has more than {LARGEST_TEXT:,} bytes; {advice}")
    return content


@contextlib.contextmanager
def _open_unpacked(file: Path) -> Iterator[IO[bytes]]:
    """Open file of bytes, unpacked where it is gzipped.

    Raises:
      UserError: it is of a kind that is not read; the message says which.
    """
    path = regular_file(file)
    with _reading(file):
        opened = path.open("rb")
    with opened:
        with _reading(file):
            start = opened.read(32)
            opened.seek(0)
        for magic, what in MAGIC:
            if start.startswith(magic):
                raise UserError(f"{short_path(file)} is {what}")
        if start.startswith(b"\x1f\x8b"):
            with gzip.GzipFile(fileobj=opened) as unpacked:
                with _reading(file):
                    twice = unpacked.peek(2)[:2] == b"\x1f\x8b"
                if twice:
                    raise UserError(f"{short_path(file)} is packed twice; unpack it with gunzip")
                yield unpacked  # type: ignore[misc]
        elif file.suffix == ".gz" and start:
            raise UserError(f"{short_path(file)} is not gzipped, as its name says")
        else:
            yield opened


@contextlib.contextmanager
def _reading(file: Path, where: Callable[[], str] = str) -> Iterator[None]:
    """Context in which errors of reading become one line that names the file."""
    try:
        yield
    except (EOFError, zlib.error, OSError) as error:
        if isinstance(error, OSError):
            what = reason(error)
        else:
            what = "it is cut off" if isinstance(error, EOFError) else str(error)
        raise UserError(f"{short_path(file)} cannot be read{where()}: {what}") from None


READERS: dict[str, Callable[[Path], Iterator[LocatedRow]]] = {
    ".jsonl": jsonl_rows,
    ".ndjson": jsonl_rows,
    ".json": json_rows,
    ".txt": line_rows,
    ".csv": functools.partial(csv_rows, delimiter=","),
    ".tsv": functools.partial(csv_rows, delimiter="\t"),
}
