"""Rows of files or of tensorflow-datasets, one at a time, each with its place in the source.

data/train.jsonl.gz    data/train-*.parquet    data/saved    texts/    tfds:gsm8k:train[:90%]
tfds:human_ratings/movies:policy    hf:trl-lib/tldr    hf:openai/gsm8k:main:test
"""

import difflib
import glob
import importlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from jaxalign.data.arrow_rows import arrow_rows, parquet_rows, saved_files
from jaxalign.data.hub import hub_files, is_hub_source
from jaxalign.data.row_fields import BadRow
from jaxalign.data.text_rows import READERS, LocatedRow, document_rows, typed_cells
from jaxalign.errors import UserError
from jaxalign.system.files import SHOWN, exists, quote, regular_file, short_path

TFDS_SOURCE = re.compile(r"tfds:(?P<name>[^:\[\]]+(?::\d+\.\d+\.\d+)?):(?P<split>.+)")
# Parts of tensorflow-datasets that register their data sets only when they are imported.
TFDS_PACKAGES = ("question_answering", "structured", "summarization", "text", "text_simplification")
TABLES = {".parquet": parquet_rows, ".arrow": arrow_rows, ".feather": arrow_rows}
FILES = (
    "a .jsonl, .json, .csv, .tsv, .txt (gzipped or not), .parquet, .arrow or .feather file, a "
    "pattern of files, a folder saved by Hugging Face datasets or one of texts, "
    "hf:OWNER/NAME:SPLIT or tfds:NAME:SPLIT"
)
FieldNames = dict[str, str]
TextUnit = Literal["line", "document"]


def rows_of(
    source: str | Path,
    fields: FieldNames,
    data_dir: str | Path | None = None,
    text: TextUnit | None = None,
) -> Iterator[LocatedRow]:
    """Rows of a source with their places; a `BadRow` in place of a row that cannot be read.

    Args:
      source: a file, a pattern of files (read in the order of their names), a folder that
        `datasets.save_to_disk` wrote or one of texts, `hf:owner/name:split`, `tfds:name:split`.
      fields: our field name to the source's, where they differ: `{"prompt": "question"}`.
      data_dir: where tensorflow-datasets keeps prepared data; its own default if None.
      text: what of a .txt file is a row; None: a line of a single file, each file of several.

    Returns:
      `(place, row)` one after another.

    Raises:
      UserError: there is no such source, or no row of it has a field that `fields` names.
    """
    missing, names = {name for name in fields.values() if name}, set()
    for place, row, texts in _raw_rows(str(source), data_dir, text):
        if isinstance(row, BadRow):
            yield place, row
            continue
        missing -= row.keys()
        if missing:
            names |= row.keys()
        renamed = _renamed(row, fields)
        yield place, typed_cells(renamed) if texts else renamed
    if missing and names:
        name = min(missing)
        near = difflib.get_close_matches(name, map(str, names), 1)
        what = f"did you mean {near[0]!r}?" if near else f"they have {sorted(map(str, names))[:20]}"
        raise UserError(
            f"{short_path(source)}: no row has the field {quote(name)} of --data.fields; {what}"
        )


def _raw_rows(
    source: str, data_dir: str | Path | None, text: TextUnit | None
) -> Iterator[tuple[str, dict[str, Any] | BadRow, bool]]:
    """Rows under the source's field names, with place and whether all values are text (CSV)."""
    if source.startswith("tfds:"):
        for place, row in _tfds_rows(source, data_dir):
            yield place, row, False
        return
    whole = (text or ("line" if os.path.isfile(source) else "document")) == "document"
    for file in _files(source):
        texts = _kind(file) in (".csv", ".tsv")
        for place, row in _file_rows(file, whole=whole):
            yield place, row, texts


def _renamed(row: dict[str, Any], fields: FieldNames) -> dict[str, Any]:
    """A row under our field names; a mapped name hides the source's own field of that name."""
    own = {name: value for name, value in row.items() if name not in fields}
    return own | {ours: row[theirs] for ours, theirs in fields.items() if theirs in row}


def _files(pattern: str) -> list[Path]:
    """Files that match a name or pattern, those of saved folders included."""
    names = [pattern] if exists(pattern) else []
    if not names and glob.has_magic(pattern):
        try:
            names = sorted(glob.glob(pattern, recursive=True))
        except (ValueError, OSError, RecursionError):
            names = []
    if not names and is_hub_source(pattern):
        return hub_files(pattern)
    if not names:
        raise UserError(f"no file {short_path(pattern)}; give {FILES}")
    paths = [Path(file) for file in names]
    return [file for path in paths for file in (_folder_files(path) if path.is_dir() else [path])]


def _folder_files(folder: Path) -> list[Path]:
    """Files of a folder: of one of texts all, or those that `datasets` saved."""
    try:
        files = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise UserError(f"{short_path(folder)} cannot be read: {error.strerror}") from None
    texts = [path for path in files if path.is_file() and _kind(path) == ".txt"]
    return texts if texts and texts == files else saved_files(folder)


def _kind(file: Path) -> str:
    """Suffix of a name without ".gz": ".json" of a.json.gz."""
    suffixes = [suffix.lower() for suffix in file.suffixes[-2:]]
    return suffixes[0] if suffixes[1:] == [".gz"] else (suffixes or [""])[-1]


def _file_rows(file: Path, *, whole: bool) -> Iterator[LocatedRow]:
    """Rows of one file, read by its suffix; `whole`: a text file is one row."""
    kind = _kind(regular_file(file))
    if kind == ".txt" and whole:
        return document_rows(file)
    if kind in READERS:
        return READERS[kind](file)
    if kind in TABLES and file.suffix.lower() != ".gz":
        return TABLES[kind](file)
    if kind in TABLES:
        raise UserError(f"{short_path(file)} is packed twice; unpack it with gunzip")
    endings = ", ".join([*READERS, *TABLES])
    raise UserError(f"{short_path(file)}: the name must end in {endings}; .gz may follow")


def _tfds_rows(source: str, data_dir: str | Path | None) -> Iterator[LocatedRow]:
    """Rows of `tfds:name[/config][:version]:split`, downloaded and prepared on first use."""
    import tensorflow_datasets as tfds

    for package in TFDS_PACKAGES:
        importlib.import_module(f"tensorflow_datasets.{package}")
    importlib.import_module("jaxalign.data.ratings.builder")  # human_ratings
    if not (parts := TFDS_SOURCE.fullmatch(source)):
        raise UserError(f"{quote(source)} is not of the form tfds:name/config:split")
    try:
        examples: Any = tfds.data_source(parts["name"], split=parts["split"], data_dir=data_dir)
    except Exception as error:  # each builder fails in its own way
        near = _near(parts["name"], tfds)
        raise UserError(
            f"{short_path(source)}: {type(error).__name__}: {_why(error)}{near}"
        ) from None
    for number in range(len(examples)):
        try:
            row = _plain(examples[number])
        except UnicodeDecodeError as error:
            row = BadRow(f"invalid UTF-8 at byte {error.start + 1} of a text")
        yield f"{source}: example {number}", row


def _why(error: Exception) -> str:
    """First line of an error of tensorflow-datasets, without the arguments of the call."""
    line = (str(error).strip().split("\n")[0]).rsplit('builder_kwargs "', 1)[-1]
    line = line.rsplit('}": ', 1)[-1].rstrip(".")[:SHOWN]
    return line if line.isprintable() else quote(line)


def _near(name: str, tfds: Any) -> str:
    """Suggestion of the most similar name, for a data set that is not known."""
    known = tfds.core.registered.list_imported_builders()
    first = name.split("/")[0].split(":")[0]
    near = [] if first in known else difflib.get_close_matches(first, known, 1)
    return f"; did you mean {near[0]}?" if near else ""


def _plain(value: Any) -> Any:
    """A value as plain Python: bytes as text, arrays as lists.

    A struct of lists (a sequence of messages) becomes a list of structs.
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
