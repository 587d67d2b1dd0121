"""Users' data, checked: every row is used or named with its place and what is wrong with it."""

import dataclasses
from pathlib import Path
from typing import Generic, Literal, TypeVar

from jaxalign.data.chat import TokenRow
from jaxalign.data.records import FIELDS, BadRow, Record
from jaxalign.data.sources import Fields, rows_of
from jaxalign.data.tokenizer import Tokenizer
from jaxalign.errors import UserError
from jaxalign.system.files import shown_path

AnyRecord = TypeVar("AnyRecord", bound=Record)
SHOWN = 5
ANSWERS = ("completion", "chosen", "rejected", "responses", "gold")
# Of a row, before anything reads its texts: no vocabulary has longer tokens in a long text.
LEAST_BYTES, BYTES_A_TOKEN = 2**16, 32


@dataclasses.dataclass(frozen=True)
class Skipped:
    """A row that was not used: `place` is file and line, Parquet file and row, or data set and
    example.
    """

    place: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Loaded(Generic[AnyRecord]):
    """The records, and the rows that were skipped.

    tokens: the token rows of every record; empty without a tokenizer.
    """

    records: list[AnyRecord]
    skipped: list[Skipped]
    tokens: list[tuple[TokenRow, ...]]

    def __str__(self) -> str:
        """How many rows were read and which were skipped; a line for each of the first few."""
        rows = len(self.records) + len(self.skipped)
        return f"{len(self.records)} of {rows} rows used" + _listed(self.skipped)


def _listed(skipped: list[Skipped]) -> str:
    """A line for each of the first few reasons, with the first few places of each."""
    reasons: dict[str, list[str]] = {}
    for bad in skipped:
        reasons.setdefault(bad.reason, []).append(bad.place)
    lines = []
    for why, places in list(reasons.items())[:SHOWN]:
        more = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
        lines.append(f"\n  {', '.join(places[:SHOWN])}{more}: {why}")
    left = sum(map(len, list(reasons.values())[SHOWN:]))
    return "".join(lines) + (f"\n  and {left} more" if left else "")


def load_records(
    source: str | Path,
    kind: type[AnyRecord],
    *,
    fields: Fields | None = None,
    on_bad_row: Literal["error", "skip"] = "error",
    tokenizer: Tokenizer | None = None,
    max_length: int | None = None,
    data_dir: str | Path | None = None,
) -> Loaded[AnyRecord]:
    """Reads and checks the records of one kind (`Prompt`, `Preference`, ... of `records.py`).

    Args:
      source: a file (`sources.FILES`), a pattern of files, or `tfds:name/config:split`.
      fields: our field name to the source's, where they differ: `{"prompt": "question"}`. An
        empty name hides a field: `{"prompt": ""}` makes a preference's prompt implicit.
      on_bad_row: "error" names the bad rows and stops; "skip" leaves them out and returns them too.
      tokenizer: makes the token rows; None: nothing is tokenised.
      max_length: a row of more tokens (BOS and EOS included) is bad; without a tokenizer, one with
        a field of more bytes than so many tokens can have.
      data_dir: where tensorflow-datasets keeps prepared data; its own default if None.
    Raises: UserError for bad rows ("error"), if no row is left, or if the source cannot be read.
    """
    if on_bad_row not in ("error", "skip"):
        raise UserError(f'on_bad_row is {on_bad_row!r}, wanted "error" or "skip"')
    if unknown := set(fields or {}) - set(FIELDS):
        raise UserError(f"no such fields: {sorted(unknown)}; there are {list(FIELDS)}")
    loaded = Loaded[AnyRecord]([], [], [])
    for place, row in rows_of(source, fields or {}, data_dir):
        try:
            if isinstance(row, BadRow):
                raise row
            record = kind.parse(row)
            if max_length is not None:
                _check_bytes(record, max_length)
            if tokenizer is not None:
                loaded.tokens.append(_token_rows(record, tokenizer, max_length))
            loaded.records.append(record)
        except BadRow as reason:
            loaded.skipped.append(Skipped(place, str(reason)))
    if loaded.skipped and on_bad_row == "error":
        bad, rows = len(loaded.skipped), len(loaded.skipped) + len(loaded.records)
        advice = 'mend them, or leave them out with on_bad_row="skip"'
        raise UserError(
            f"{shown_path(source)}: {bad} of {rows} rows are bad; {advice}{_listed(loaded.skipped)}"
        )
    if not loaded.records:
        raise UserError(f"{shown_path(source)}: no usable row{_listed(loaded.skipped)}")
    if all(map(_repeats, loaded.records)):
        raise UserError(
            f"{shown_path(source)}: every answer begins with its prompt, which would stand there "
            f"twice; take it out of the answers, or, of pairs, hide it with --data.fields prompt "
            f'"": what both begin with is the prompt then'
        )
    return loaded


def _repeats(record: Record) -> bool:
    """Whether all answers of a record are texts that begin with its prompt, which is more than a
    word.
    """
    found = vars(record)
    answers = [found[name] for name in ANSWERS if name in found]
    texts = [text for part in answers for text in (part if isinstance(part, list) else [part])]
    prompt = found["prompt"]
    if not texts or not isinstance(prompt, str) or len(prompt.split()) < 2:
        return False
    return all(isinstance(text, str) and text.startswith(prompt) for text in texts)


def _check_bytes(record: Record, max_length: int) -> None:
    """Before a tokenizer sees it: some take sixty times a text's size."""
    allowed = LEAST_BYTES + BYTES_A_TOKEN * max_length
    for field, said in vars(record).items():
        if field != "columns" and (found := _bytes_of(said)) > allowed:
            raise BadRow(
                f"{field} has {found:,} bytes, more than {max_length} tokens, the limit, can have"
            )


def _bytes_of(said: object) -> int:
    """Of all texts in lists and messages."""
    found, left = 0, [said]
    while left:
        part = left.pop()
        if isinstance(part, str):
            found += len(part.encode(errors="surrogatepass"))
        elif isinstance(part, dict | list):
            left += part.values() if isinstance(part, dict) else part
    return found


def _token_rows(
    record: Record, tokenizer: Tokenizer, max_length: int | None
) -> tuple[TokenRow, ...]:
    try:
        rows = record.token_rows(tokenizer)
    except UserError as refusal:  # of a chat template, say: roles that do not alternate
        raise BadRow(str(refusal)) from None
    longest = max(len(row) for row in rows)
    if max_length is not None and longest > max_length:
        raise BadRow(f"{longest} tokens, the limit is {max_length}")
    return rows
