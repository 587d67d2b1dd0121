"""`--peer`: which libraries are installed, their columns, the page."""

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.conformance.peers import ours, tables
from benchmarks.conformance.peers.adapter import Adapter
from benchmarks.conformance.peers.matrix import ABSENT, Column, from_json, run_rows, to_json
from benchmarks.conformance.peers.rows import ROWS

PEERS = (
    "trl",
    "tunix",
    "rlax",
    "stable_baselines3",
    "torchrl",
    "verl",
    "torchtune",
)


def adapter_of(name: str) -> Adapter | str:
    """The adapter, or one line that says why there is none."""
    try:
        return import_module(f"benchmarks.conformance.peers.{name}").adapter()
    except ImportError as error:
        if (error.name or "").split(".")[0] in ("benchmarks", "jaxalign"):
            raise
        return (
            f"{name}: skipped, it does not import ({error}); pip install 'jaxalign[peers]' for all"
        )


def measured(names: Sequence[str]) -> list[Column]:
    """Our column, then those of the libraries that are installed."""
    columns = [run_rows(ROWS, ours.adapter())]
    for name in names:
        adapter = adapter_of(name)
        if isinstance(adapter, str):
            print(adapter)
        else:
            columns.append(run_rows(ROWS, adapter))
    return columns


def merged(columns: Sequence[Column], files: Sequence[Path]) -> list[Column]:
    """Adds the columns of other runs (of other environments) that are not here yet.

    Ours stays first; of the others, those with more rows come first.
    """
    found = {column.name: column for column in columns}
    for file in files:
        for column in from_json(file.read_text()):
            found.setdefault(column.name, column)

    def absent(column: Column) -> int:
        return sum(cell.status == ABSENT for cell in column.cells.values())

    first, *others = found.values()
    return [first, *sorted(others, key=absent)]


def show(columns: Sequence[Column]):
    lines = tables.grid(ROWS, columns)
    table = Table(*lines[0])
    for line in lines[1:]:
        table.add_row(*line)
    console = Console(width=max(120, Console().width))
    console.print(table)
    for column in columns:
        print(f"{column.name} ({column.version}): {tables.summary(column)}")
        for key, cell in column.cells.items():
            if cell.status not in ("pass", "-"):
                print(f"  {key}: {cell.text}" + (f" ({cell.note})" if cell.note else ""))


def run(
    names: Sequence[str],
    *,
    markdown: Path | None = None,
    json: Path | None = None,
    merge: Sequence[Path] = (),
) -> int:
    """Prints, writes, and returns the exit status: 1 if our column does not pass everywhere."""
    columns = merged(measured(PEERS if "all" in names else names), merge)
    show(columns)
    if markdown:
        markdown.write_text(tables.page(ROWS, columns))
    if json:
        json.write_text(to_json(columns))
    failures = tables.our_failures(columns[0])
    for line in failures:
        print(f"ours: {line}", file=sys.stderr)
    return int(bool(failures))
