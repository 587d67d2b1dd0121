"""Tables for a terminal and for Markdown, with the sentences that say what they mean."""

from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from benchmarks.exact.estimates import ZERO


class Table(NamedTuple):
    """title, what it shows, what follows from it; header and rows of cells, the first a name."""

    title: str
    shows: str
    conclusion: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def number(x) -> str:
    """Two decimals or digits; 0 for what is 0 up to rounding, a dash for what is not defined."""
    x = float(x)
    if x != x:
        return "–"
    if abs(x) < ZERO:
        return "0"
    return f"{x:.2f}" if 0.1 <= abs(x) < 100 else f"{x:.2g}"


def markdown(table: Table) -> str:
    """The table under its title, between its sentences."""
    cells = [table.header, *table.rows]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    lines.insert(1, "|:--|" + "--:|" * (len(table.header) - 1))
    return "\n".join([f"## {table.title}", "", table.shows, "", *lines, "", table.conclusion, ""])


def show(table: Table, console: Console) -> None:
    """The same in a terminal."""
    grid = Grid(title=table.title, title_justify="left", caption_justify="left")
    for place, name in enumerate(table.header):
        grid.add_column(escape(name), justify="right" if place else "left", overflow="fold")
    for row in table.rows:
        grid.add_row(*map(escape, row))
    console.print(grid)
    console.print(escape(f"{table.shows} {table.conclusion}\n"), highlight=False)
