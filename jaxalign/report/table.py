"""Tables of results as HTML."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxalign.evaluation.tables import Column, number, present
from jaxalign.report.html import Markup, tag
from jaxalign.report.style import COLOURS


def table(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[Column],
    *,
    dots: Mapping[str, str] | None = None,
) -> Markup | None:
    """HTML table of the columns that some row fills, intervals below the numbers."""
    filled = present(columns, rows)
    if not any(column.form for column in filled):
        return None
    head = tag("tr", *(tag("th", _unbroken(column.title), scope="col") for column in filled))
    body = (_table_row(row, filled, dots or {}) for row in rows)
    return tag("div", tag("table", tag("thead", head), tag("tbody", *body)), class_="scroll")


def meanings(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> Markup | None:
    """List of the explanations of a table's columns."""
    explained = [column for column in present(columns, rows) if column.explanation and column.form]
    cells = (tag("div", tag("dt", c.title), tag("dd", c.explanation)) for c in explained)
    return tag("dl", *cells, class_="meaning") if explained else None


def unknown_columns(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> list[Column]:
    """Columns for the numbers of rows that no known column shows."""
    known = {column.key for column in columns}
    ends = {f"{key}{end}" for row in rows for key in row for end in ("_low", "_high", "_sd")}
    keys = dict.fromkeys(
        key for row in rows for key, value in row.items() if number(value) is not None
    )
    extra = [key for key in keys if key not in known and key not in ends]
    return [
        Column(key=key, title=key.replace("_", " "), explanation="", form=".3g") for key in extra
    ]


def _table_row(
    row: Mapping[str, Any], columns: Sequence[Column], dots: Mapping[str, str]
) -> Markup:
    """One row; the first cell names it."""
    cells = []
    for column in columns:
        value, spread = column.value_text(row), column.range_text(row)
        if column.form:
            small = tag("small", spread) if spread else None
            cells.append(tag("td", value, small))
        else:
            long = "long" if len(value) > 14 else None
            cells.append(tag("th", _dot(dots.get(value)), value, scope="row", class_=long))
    return tag("tr", *cells)


def _unbroken(title: str) -> str:
    """A heading that does not break at its hyphens."""
    return title.replace("-", "\N{NON-BREAKING HYPHEN}")


def _dot(colour: str | None) -> Markup | None:
    """The colour that a method has in the plots."""
    name = next((name for name, pair in COLOURS.items() if pair[0] == colour), None)
    return tag("span", class_="dot", style=f"background:var(--{name})") if name else None
