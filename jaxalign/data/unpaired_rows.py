"""Rows of preferences as rows of labelled responses, for methods that learn from these."""

from collections.abc import Iterable, Iterator

from jaxalign.data.records import Preference
from jaxalign.data.row_fields import BadRow, Row, has_value
from jaxalign.data.sources import LocatedRow

PAIR = ("chosen", "rejected")


def unpaired_rows(rows: Iterable[LocatedRow]) -> Iterator[LocatedRow]:
    """The rows, those with `chosen` and `rejected` as two: the first labelled good, the other bad.

    >>> row = {"prompt": "Why?", "chosen": " So.", "rejected": " No."}
    >>> [(row["completion"], row["label"]) for _, row in unpaired_rows([("a:1", row)])]
    [(' So.', True), (' No.', False)]
    """
    for place, row in rows:
        if isinstance(row, BadRow) or not _is_pair(row):
            yield place, row
            continue
        try:
            pair = Preference.parse(row)
        except BadRow as reason:
            yield place, reason
            continue
        rest = {name: value for name, value in row.items() if name not in (*PAIR, "prompt")}
        for completion, label in ((pair.chosen, True), (pair.rejected, False)):
            yield place, {**rest, "prompt": pair.prompt, "completion": completion, "label": label}


def _is_pair(row: Row) -> bool:
    labelled = has_value(row, "completion") or has_value(row, "label")
    return not labelled and all(has_value(row, side) for side in PAIR)
