"""Rows out of JSON Lines, Parquet or tensorflow-datasets, one at a time, each with the place it
came from.

    data/train.jsonl    data/train-*.parquet    tfds:gsm8k:train[:90%]
    tfds:human_ratings/movies:policy
"""

import collections
import glob
import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxalign.data.records import BadRow
from jaxalign.errors import UserError

TFDS_SOURCE = re.compile(r"tfds:(?P<name>[^:\[\]]+(?::\d+\.\d+\.\d+)?):(?P<split>.+)")
# Parts of tensorflow-datasets that register their data sets only when they are imported.
TFDS_PACKAGES = ("question_answering", "structured", "summarization", "text", "text_simplification")
Fields = dict[str, str]
Placed = tuple[str, dict[str, Any] | BadRow]


def rows_of(
    source: str | Path, fields: Fields, data_dir: str | Path | None = None
) -> Iterator[Placed]:
    """`(place, row)`, or `(place, BadRow)` where there is no row to be had.

    Args:
      source: a file, a pattern of files (read in the order of their names), or `tfds:name:split`.
      fields: our field name to the source's, where they differ: `{"prompt": "question"}`.
      data_dir: where tensorflow-datasets keeps prepared data; its own default if None.
    Raises: UserError if there is no such source.
    """
    if str(source).startswith("tfds:"):
        found = _tfds_rows(str(source), data_dir)
    else:
        found = (row for file in _files(str(source)) for row in _file_rows(file))
    for place, row in found:
        yield place, row if isinstance(row, BadRow) else _renamed(row, fields)


def _renamed(row: dict[str, Any], fields: Fields) -> dict[str, Any]:
    """A row under our field names; a mapped name hides a field of the source that has that name."""
    own = {name: value for name, value in row.items() if name not in fields}
    return own | {ours: row[theirs] for ours, theirs in fields.items() if theirs in row}


def _files(pattern: str) -> list[Path]:
    if Path(pattern).is_file():
        return [Path(pattern)]
    if not (files := sorted(glob.glob(pattern, recursive=True))):
        raise UserError(f"no file {pattern}")
    return [Path(file) for file in files]


def _file_rows(file: Path) -> Iterator[Placed]:
    if file.suffix == ".parquet":
        return _parquet_rows(file)
    if file.suffix in (".jsonl", ".ndjson"):
        return _jsonl_rows(file)
    raise UserError(f"{file}: the name must end in .jsonl or .parquet")


def _jsonl_rows(file: Path) -> Iterator[Placed]:
    """One JSON object a line; empty lines are passed over, a byte order mark is dropped."""
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if line.strip():
                yield f"{file}:{number}", _json_row(line)


def _json_row(line: bytes) -> dict[str, Any] | BadRow:
    try:
        row = json.loads(line.decode(), object_pairs_hook=_without_repetition)
    except UnicodeDecodeError as error:
        return BadRow(f"invalid UTF-8 at byte {error.start + 1} of the line")
    except RecursionError:
        return BadRow("invalid JSON: nested too deeply")
    except BadRow as reason:
        return reason
    except ValueError as error:
        return BadRow(f"invalid JSON: {error}")
    return row if isinstance(row, dict) else BadRow(f"not an object but {type(row).__name__}")


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of a field that stands twice in an object JSON readers keep one, silently."""
    row = dict(pairs)
    if len(row) < len(pairs):
        counts = collections.Counter(name for name, _ in pairs)
        raise BadRow(f"{counts.most_common(1)[0][0]!r} stands there twice")
    return row


def _parquet_rows(file: Path) -> Iterator[Placed]:
    """Read in batches of 1,000 rows, so that memory does not grow with the file."""
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            for batch in table.iter_batches(batch_size=1000):
                for i in range(batch.num_rows):
                    number += 1
                    yield f"{file}: row {number}", _parquet_row(batch.slice(i, 1))
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{file}: not readable as Parquet after row {number}: {error}") from None


def _parquet_row(batch: Any) -> dict[str, Any] | BadRow:
    try:
        return batch.to_pylist()[0]
    except UnicodeDecodeError as error:
        return BadRow(f"invalid UTF-8 at byte {error.start + 1} of a text")


def _tfds_rows(source: str, data_dir: str | Path | None) -> Iterator[Placed]:
    """`tfds:name[/config][:version]:split`, downloaded and prepared on first use."""
    import tensorflow_datasets as tfds

    for package in TFDS_PACKAGES:
        importlib.import_module(f"tensorflow_datasets.{package}")
    importlib.import_module("jaxalign.data.ratings.builder")  # human_ratings
    if not (parts := TFDS_SOURCE.fullmatch(source)):
        raise UserError(f"{source!r} is not of the form tfds:name/config:split")
    try:
        examples: Any = tfds.data_source(parts["name"], split=parts["split"], data_dir=data_dir)
    except Exception as error:  # each builder fails in its own way
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"{source}: {type(error).__name__}: {reason}") from None
    for number in range(len(examples)):
        try:
            row = _plain(examples[number])
        except UnicodeDecodeError as error:
            row = BadRow(f"invalid UTF-8 at byte {error.start + 1} of a text")
        yield f"{source}: example {number}", row


def _plain(value: Any) -> Any:
    """Bytes as text, arrays as lists, a struct of lists (a sequence of messages) as a list of
    structs.
    """
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, dict):
        plain = {key: _plain(item) for key, item in value.items()}
        if plain.keys() == {"role", "content"} and isinstance(plain["role"], list):
            pairs = zip(plain["role"], plain["content"], strict=True)
            return [{"role": role, "content": content} for role, content in pairs]
        return plain
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return _plain(value.tolist()) if hasattr(value, "tolist") else value
