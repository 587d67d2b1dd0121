"""Runs rows on adapters; rows by libraries as cells."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from benchmarks.conformance.peers.adapter import Adapter, Measured, NotOffered, Row

PASS, FAIL, ABSENT, ERROR = "pass", "FAIL", "-", "error"


@dataclass(frozen=True)
class Cell:
    """What one library does on one row. status: one of the four above."""

    status: str
    detail: str = ""
    function: str = ""
    note: str = ""

    @property
    def text(self) -> str:
        return {ABSENT: ABSENT, ERROR: f"error: {self.detail}"}.get(
            self.status, f"{self.status}: {self.detail}"
        )


@dataclass(frozen=True)
class Column:
    """One library's cells by key of the row."""

    name: str
    version: str
    cells: Mapping[str, Cell]


def one_line(error: Exception) -> str:
    first = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {first}"[:160]


def run_row(row: Row, adapter: Adapter) -> Cell:
    """A crash is a cell like any other."""
    capability = adapter.capabilities.get(row.capability)
    note = adapter.notes.get(row.key, "")
    if capability is None:
        return Cell(ABSENT, note=note)
    try:
        measured: Measured = row.check(capability.call)
    except NotOffered as missing:
        return Cell(ABSENT, note=str(missing))
    except Exception as error:  # whatever a library raises is its result
        return Cell(ERROR, one_line(error), capability.function, note)
    return Cell(PASS if measured.passed else FAIL, measured.number, capability.function, note)


def run_rows(rows: Sequence[Row], adapter: Adapter) -> Column:
    unknown = set(adapter.notes) - {row.key for row in rows}
    if unknown:
        raise ValueError(f"{adapter.name} has notes on no row: {sorted(unknown)}")
    cells = {row.key: run_row(row, adapter) for row in rows}
    return Column(adapter.name, adapter.version, cells)


def to_json(columns: Sequence[Column]) -> str:
    return json.dumps([asdict(column) for column in columns], indent=1) + "\n"


def from_json(text: str) -> list[Column]:
    return [
        Column(
            column["name"],
            column["version"],
            {key: Cell(**cell) for key, cell in column["cells"].items()},
        )
        for column in json.loads(text)
    ]
