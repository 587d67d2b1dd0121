"""Fields of a row of data, read one by one; a value that cannot be used raises `BadRow`."""

import itertools
import json
from collections.abc import Mapping
from typing import Any

from jaxalign.system.files import quote

Row = Mapping[str, Any]
MAX_DEPTH = 64  # of lists and objects within one another


class BadRow(Exception):
    """The reason why a row cannot be used; the reader adds the row's place."""


def has_value(row: Row, field: str) -> bool:
    """Whether a field is there and not null, with which tables fill absent fields."""
    return row.get(field) is not None


def required_value(row: Row, field: str) -> Any:
    """Value of a field, which must be there and not null."""
    if field not in row:
        raise BadRow(f"no {field!r}; the row has {sorted(row)[:20]}")
    if row[field] is None:
        raise BadRow(f"{field} is null")
    return row[field]


def list_entries(row: Row, field: str, what: str) -> dict[str, Any]:
    """Entries of a field that is a list, by their names in messages: `{"labels[0]": True}`."""
    value = required_value(row, field)
    if not isinstance(value, list):
        raise BadRow(f"{field} is {short_repr(value)}, wanted a list {what}")
    return {f"{field}[{i}]": part for i, part in enumerate(value)}


def bounded_number(row: Row, field: str, *, high: float) -> float:
    """Value of a field that is a number in [0, high]; where `high` is 1, also true or false."""
    value = required_value(row, field)
    label = high == 1
    known = isinstance(value, int | float) and (label or not isinstance(value, bool))
    if not known or not 0 <= value <= high:
        wanted = "true, false or a number in [0, 1]" if label else f"a number from 0 to {high:,.0f}"
        raise BadRow(f"{field} is {short_repr(value)}, wanted {wanted}")
    return float(value)


def json_value(row: Row, field: str, kind: type, wanted: str) -> Any:
    """Value of a field of type `kind`, also where a table holds it as a JSON text."""
    value = row[field]
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = row[field]
    if not isinstance(value, kind):
        raise BadRow(f"{field} is {short_repr(value)}, wanted {wanted}")
    check_depth(value)
    return value


def check_depth(value: Any) -> None:
    """Refuse a value nested more than `MAX_DEPTH` levels deep, which recursive code cannot handle.

    Raises:
      BadRow: it is nested too deeply.
    """
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        inner = itertools.chain.from_iterable(
            part.values() if isinstance(part, dict) else part
            for part in level
            if isinstance(part, dict | list)
        )
        level = [part for part in inner if isinstance(part, dict | list)]
        if not level:
            return
    raise BadRow(f"nested more than {MAX_DEPTH} levels deep")


def check_json(value: Any, field: str) -> None:
    """Refuse a value for a chat template that is not JSON in valid Unicode."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise BadRow(f"{field} holds half a surrogate pair: invalid Unicode") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise BadRow(f"{field} is not JSON: {error}") from None


def unicode_text(field: str, text: str) -> str:
    """The text, checked to be valid Unicode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadRow(f"{field} holds half a surrogate pair: invalid Unicode") from None
    return text


def short_repr(value: Any) -> str:
    """First 40 characters of a value and its type, for a message."""
    text = str(value) if isinstance(value, str | float) else quote(value).strip("'")
    return f"{text[:40]!r} ({type(value).__name__})"
