"""Columns as a page and as a grid for the terminal."""

from collections.abc import Iterator, Sequence

from benchmarks.conformance.peers.adapter import Row
from benchmarks.conformance.peers.matrix import ABSENT, ERROR, FAIL, PASS, Column

HEADING = """# Installed libraries on theorems and invariances

`python -m benchmarks.conformance --peer all`; {versions}.

A cell says what an installed library's own function does on a theorem or an invariance: `pass`,
`FAIL`, `-` (it has no such function, or the row does not apply to it) or `error` (it raised). Right
values come from the cited formulas in float64, not from any library; tolerances are for float32.
What each row means, and which function was called, stands below."""


def summary(column: Column) -> str:
    counts = {
        status: sum(cell.status == status for cell in column.cells.values())
        for status in (PASS, FAIL, ERROR)
    }
    return ", ".join(f"{count} {status}" for status, count in counts.items() if count)


def grid(rows: Sequence[Row], columns: Sequence[Column]) -> list[list[str]]:
    """A header, then a line a row: only the status of each cell."""
    lines = [["row", *(column.name for column in columns)]]
    lines += [[row.key, *(column.cells[row.key].status for column in columns)] for row in rows]
    return lines


def _details(rows: Sequence[Row], columns: Sequence[Column]) -> Iterator[list[str]]:
    """What did not pass, and what has a remark."""
    yield ["row", "library", "result", "measured", "remark"]
    for row in rows:
        for column in columns:
            cell = column.cells[row.key]
            if cell.status in (FAIL, ERROR) or (cell.note and cell.status != ABSENT):
                yield [row.key, column.name, cell.status, cell.detail, cell.note]


def _functions(rows: Sequence[Row], columns: Sequence[Column]) -> Iterator[list[str]]:
    yield ["library", "rows", "what was called"]
    for column in columns:
        called: dict[str, list[str]] = {}
        for row in rows:
            if column.cells[row.key].function:
                called.setdefault(column.cells[row.key].function, []).append(row.key)
        for function, keys in called.items():
            yield [column.name, ", ".join(keys), function]


def _table(lines: Sequence[Sequence[str]]) -> list[str]:
    cells = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    texts = [f"| {' | '.join(line)} |" for line in cells]
    return [texts[0], f"|{'---|' * len(cells[0])}", *texts[1:]]


def page(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    versions = "; ".join(f"{column.name}: {column.version}" for column in columns)
    totals = ["total", *(summary(column) for column in columns)]
    meanings = [["row", "meaning", "source"]]
    meanings += [[f"`{row.key}`", row.meaning, "; ".join(row.sources)] for row in rows]
    parts = [
        [HEADING.format(versions=versions)],
        _table([*grid(rows, columns), totals]),
        ["## What did not pass, and remarks"],
        _table(list(_details(rows, columns))),
        ["## Rows"],
        _table(meanings),
        ["## Functions"],
        _table(list(_functions(rows, columns))),
    ]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def our_failures(column: Column) -> list[str]:
    return [f"{key}: {cell.text}" for key, cell in column.cells.items() if cell.status != PASS]
