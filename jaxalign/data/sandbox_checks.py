"""Checks of the operations of a chat template before they are done: sizes, widths, methods."""

import re
import string
import types
from collections.abc import Sequence
from typing import Any

from jinja2.exceptions import SecurityError
from jinja2.runtime import Undefined

from jaxalign.data.sandbox_budget import BUDGET, LARGEST_NUMBER, UNIT, check_plain

LARGEST_WIDTH = 1000  # of padding, indentation, precision
MOST_HASHED = 4096  # entries of what is hashed: numbers may be chosen so that all hashes are one
METHODS = {
    str: frozenset(
        (
            *("capitalize", "casefold", "center", "count", "endswith", "expandtabs", "find"),
            *("format", "format_map", "index", "isalnum", "isalpha", "isascii", "isdecimal"),
            *("isdigit", "islower", "isnumeric", "isspace", "istitle", "isupper", "join", "ljust"),
            *("lower", "lstrip", "partition", "removeprefix", "removesuffix", "replace", "rfind"),
            *("rindex", "rjust", "rpartition", "rsplit", "rstrip", "split", "splitlines"),
            *("startswith", "strip", "swapcase", "title", "upper", "zfill"),
        )
    ),
    list: frozenset(("copy", "count", "index")),
    tuple: frozenset(("count", "index")),
    dict: frozenset(("copy", "get", "items", "keys", "values")),
    float: frozenset(("is_integer",)),
}
WIDTHS = frozenset(  # methods and filters of which a number says how much they write
    (
        *("batch", "center", "expandtabs", "indent", "ljust", "rjust", "round", "slice"),
        *("tojson", "truncate", "zfill"),
    )
)
# Filters that go through a text letter by letter.
ITERATING = frozenset(
    (
        *("batch", "groupby", "join", "list", "map", "max", "min", "reject", "rejectattr"),
        *("select", "selectattr", "slice", "sort", "sum", "title", "unique", "urlencode"),
        "wordcount",
    )
)
WIDE_PERCENT = re.compile(r"(?<!\d)\d{4,}+(?:\.\d*+)?[hlL]?[diouxXeEfFgGcrsa%]|\.\d{4}")


def check_filter(name: str, values: Sequence[Any]) -> None:
    """Refuse a filter whose result would be too large."""
    value, *rest = values or [None]
    if name in WIDTHS:
        _check_widths(rest)
    if name in ITERATING and isinstance(value, str):
        BUDGET.get().check(len(value))
    if name == "join" and rest:
        _check_join(str(rest[0]), value)
    elif name == "replace" and len(rest) > 1:
        _check_replace(str(value), str(rest[0]), str(rest[1]))
    elif name == "unique":
        check_hashed([value])
    elif name == "format":
        check_percent(str(value), rest)
    elif name == "indent":
        _check_padding(str(value).count("\n") + 1, rest)
    elif name == "sum" and any(isinstance(part, (list, tuple)) for part in rest):
        raise SecurityError("it sums lists")


def check_method(owner: Any, name: str, values: Sequence[Any]) -> None:
    """Refuse a method that templates do not need or whose result would be too large."""
    allowed = next((METHODS[kind] for kind in METHODS if isinstance(owner, kind)), frozenset())
    if name not in allowed or isinstance(owner, type):
        raise SecurityError(f"it calls {name!r} of a {type(owner).__name__}")
    budget = BUDGET.get()
    check_plain(values)
    budget.spend(sum(map(budget.size_of, values)))
    if not isinstance(owner, str):
        return
    budget.spend(budget.size_of(owner))
    if name in WIDTHS:
        _check_widths(values)
        _check_padding(owner.count("\t") + 1, values)
    elif name == "join" and values:
        _check_join(owner, values[0])
    elif name == "replace" and len(values) > 1:
        _check_replace(owner, str(values[0]), str(values[1]))
    elif name in ("split", "rsplit", "splitlines"):
        at = values[0] if values and isinstance(values[0], str) else None
        budget.check(owner.count(at) if at else len(owner.split(None, budget.largest)))


def check_hashed(values: Sequence[Any]) -> None:
    """Refuse to hash more than `MOST_HASHED` entries, which may all have one hash."""
    for value in values:
        if isinstance(value, (list, tuple, range)) and len(value) > MOST_HASHED:
            raise SecurityError(f"it compares more than {MOST_HASHED} entries with one another")


def _check_widths(values: Sequence[Any]) -> None:
    """Refuse a width of padding, indentation or precision of more than `LARGEST_WIDTH`."""
    for value in values:
        size = len(value) if isinstance(value, str) else value
        if isinstance(size, (int, float)) and not -LARGEST_WIDTH <= size <= LARGEST_WIDTH:
            raise SecurityError(f"it asks for a width of more than {LARGEST_WIDTH}")


def _check_padding(times: int, widths: Sequence[Any]) -> None:
    """Refuse padding, `times` over, that would make the text too large."""
    for width in widths:
        size = len(width) if isinstance(width, str) else width
        if isinstance(size, int):
            BUDGET.get().check(times * size // UNIT)


def _check_join(separator: str, values: Any) -> None:
    """Refuse a joined text that would be too large."""
    budget = BUDGET.get()
    count = 0 if isinstance(values, (int, float, types.NoneType, Undefined)) else len(values)
    budget.check(budget.size_of(values) + count * len(separator) // UNIT)


def _check_replace(text: str, old: str, new: str) -> None:
    """Refuse a replacement that would make the text too large."""
    BUDGET.get().check((len(text) + text.count(old) * len(new)) // UNIT)


def check_product(left: Any, right: Any) -> None:
    """Refuse a repeated text or list that would be too large."""
    if isinstance(left, int) and not isinstance(right, int):
        left, right = right, left
    if isinstance(right, int) and isinstance(left, (str, list, tuple)):
        units = len(left) / UNIT if isinstance(left, str) else BUDGET.get().size_of(left)
        BUDGET.get().check(int(min(right, 10**12) * units))


def check_power(left: Any, right: Any) -> None:
    """Refuse a power of more than `LARGEST_NUMBER` bits."""
    numbers = isinstance(left, int) and isinstance(right, int)
    if numbers and left.bit_length() * right > LARGEST_NUMBER:
        raise SecurityError(f"a number of more than {LARGEST_NUMBER} bits")


def check_percent(text: str, values: Any) -> None:
    """Refuse `text % values` with large widths, in the text or, for `*`, in the values."""
    parts = [*values] if isinstance(values, (list, tuple)) else [values]
    check_plain(parts)
    if WIDE_PERCENT.search(text):
        raise SecurityError(f"it asks for a width of more than {LARGEST_WIDTH}")
    if "*" in text:
        _check_widths([value for value in parts if isinstance(value, int)])
    _check_formatted_size(text, text.count("%"), values)


def check_format(text: str, values: Sequence[Any]) -> None:
    """Refuse `text.format(*values)` with large widths."""
    check_plain(values)
    _check_formatted_size(text, text.count("{"), list(values))
    specs = [spec or "" for _, _, spec, _ in string.Formatter().parse(text)]
    if any("{" in spec or re.search(r"\d{4}", spec) for spec in specs):
        raise SecurityError(f"it asks for a width of more than {LARGEST_WIDTH}")


def _check_formatted_size(text: str, times: int, values: Any) -> None:
    """Refuse a formatted text that would be too large."""
    budget = BUDGET.get()
    each = budget.size_of(values) + LARGEST_WIDTH // UNIT
    budget.check(len(text) // UNIT + times * each)
