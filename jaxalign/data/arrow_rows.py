"""Rows of Arrow tables: Parquet, Feather, and folders that Hugging Face's `datasets` saves."""

import decimal
import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxalign.data.row_fields import BadRow, check_depth
from jaxalign.data.text_rows import READERS, LocatedRow
from jaxalign.errors import UserError
from jaxalign.system.files import SHOWN, quote, read_json, regular_file, short_path

ENDINGS = (*READERS, ".parquet", ".arrow", ".feather")
BATCH = 1000  # rows that are in memory at once


def parquet_rows(file: Path) -> Iterator[LocatedRow]:
    """Rows of a Parquet file."""
    import pyarrow.parquet

    def batches() -> Iterator[Any]:
        with pyarrow.parquet.ParquetFile(file, page_checksum_verification=True) as table:
            _check_columns(file, table.schema_arrow.names)
            yield from table.iter_batches(batch_size=BATCH)

    return _rows(file, "Parquet", batches())


def arrow_rows(file: Path) -> Iterator[LocatedRow]:
    """Rows of an Arrow file (Feather) or Arrow stream."""
    import pyarrow

    def batches() -> Iterator[Any]:
        with pyarrow.memory_map(str(file)) as source:
            start = source.read(6)
            source.seek(0)
            if start[:4] == b"FEA1":
                raise UserError(f"{short_path(file)} is Feather of version 1; save it anew")
            if start == b"ARROW1":
                table = pyarrow.ipc.open_file(source)
                batches_of_file = (table.get_batch(i) for i in range(table.num_record_batches))
            else:
                table = batches_of_file = pyarrow.ipc.open_stream(source)
            _check_columns(file, table.schema.names)
            for batch in batches_of_file:
                batch.validate(full=True)  # what stands there may point anywhere
                yield from (batch.slice(i, BATCH) for i in range(0, batch.num_rows, BATCH))

    return _rows(file, "Arrow", batches())


def saved_files(folder: Path) -> list[Path]:
    """Files of a folder that `datasets.save_to_disk` wrote, in order.

    Raises:
      UserError: it holds several data sets, or is another folder; the message says what to give.
    """
    name = short_path(folder)
    if (folder / "state.json").is_file():
        entries = read_json(folder / "state.json").get("_data_files")
        if not isinstance(entries, list) or not all(map(_is_data_file, entries)):
            raise UserError(f"{name}/state.json lists no files as _data_files")
        return [folder / entry["filename"] for entry in entries]
    try:
        inside = sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"{name} cannot be read: {error.strerror}") from None
    splits = [path for path in inside if (path / "state.json").is_file()]
    if len(splits) == 1:
        return saved_files(splits[0])
    if splits:
        names = ", ".join(path.name for path in splits)
        raise UserError(f"{name} holds the parts {names}; give one, as {name}/{splits[0].name}")
    names = [path.name for path in inside if path.is_file() and not path.name.startswith(".")]
    rows = [name for name in names if Path(name.removesuffix(".gz")).suffix in ENDINGS]
    if not rows:
        entries = quote(names[:5]) if names else "no file"
        raise UserError(f"{name} is a directory, which holds {entries}; give a file of rows")
    kinds = Counter(Path(row).suffix for row in rows)
    pattern = f"{name}/*{kinds.most_common(1)[0][0]}"
    raise UserError(
        f"{name} is a directory, which holds {quote(rows[:5])}; give one, or several as {pattern}"
    )


def _is_data_file(entry: Any) -> bool:
    """Whether an entry of `state.json` names a file in the same folder."""
    name = entry.get("filename") if isinstance(entry, dict) else None
    return isinstance(name, str) and name == Path(name).name


def _check_columns(file: Path, names: list[str]) -> None:
    """Refuse a table in which two columns have the same name."""
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"{short_path(file)}: the column {quote(twice[0])} is named twice")


def _rows(file: Path, kind: str, batches: Iterator[Any]) -> Iterator[LocatedRow]:
    """Rows of record batches, one batch in memory at a time."""
    import pyarrow

    regular_file(file)
    number = 0
    try:
        for batch in batches:
            for i in range(batch.num_rows):
                number += 1
                yield f"{short_path(file)}: row {number}", _row(batch, i)
    except (pyarrow.ArrowException, OSError, MemoryError) as error:
        raise UserError(
            f"{short_path(file)}: not readable as {kind} after row {number}: {_line(error)}"
        ) from None


def _row(batch: Any, i: int) -> dict[str, Any] | BadRow:
    """Row i of a record batch."""
    row = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            row[name] = _plain(column[i].as_py(maps_as_pydicts="strict"))
        except UnicodeDecodeError as error:
            return BadRow(f"{name}: invalid UTF-8 at byte {error.start + 1} of a text")
        except RecursionError:
            return BadRow(f"{name}: nested too deeply")
        except Exception as error:  # a type of Arrow that Python lacks: dates, durations, maps
            return BadRow(f"{name} of type {column.type} is not readable: {_line(error)}")
    try:
        check_depth(row)
    except BadRow as fault:
        return fault
    return row


def _plain(value: Any) -> Any:
    """A value as plain Python: decimals as numbers, UTF-8 as text, objects without null entries.

    A table fills with null what an object lacks. A struct of lists becomes a list of structs.
    """
    if isinstance(value, dict):
        entries = {name: _plain(item) for name, item in value.items() if item is not None}
        lists = [item for item in entries.values() if isinstance(item, list)]
        if entries.keys() == {"role", "content"} and len(lists) == 2:
            pairs = itertools.zip_longest(entries["role"], entries["content"])
            return [{"role": role, "content": content} for role, content in pairs]
        return entries
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, decimal.Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value  # an image, say: only what asks for a text minds
    return value


def _line(error: BaseException) -> str:
    """Message of an error on one line."""
    if "zoneinfo" in str(error):
        return "its time zone is not known here"
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
