"""Loading of users' data: every row becomes a record or is named with its place and its fault."""

import dataclasses
from pathlib import Path
from typing import Generic, Literal, TypeVar

from jaxalign.data.chat import TokenRow
from jaxalign.data.records import FIELDS, Record
from jaxalign.data.row_fields import BadRow, Row
from jaxalign.data.sources import FieldNames, rows_of
from jaxalign.data.tokenizer import Tokenizer
from jaxalign.errors import UserError
from jaxalign.system.files import short_path

AnyRecord = TypeVar("AnyRecord", bound=Record)
SHOWN = 5
ANSWERS = ("completion", "chosen", "rejected", "responses", "gold")
# Of a row, before anything reads its texts: no vocabulary has longer tokens in a long text.
LEAST_BYTES, BYTES_A_TOKEN = 2**16, 32


@dataclasses.dataclass(frozen=True)
class SkippedRow:
    """A row that was not used, and why.

    place: file and line, Parquet file and row, or data set and example.
    reason: what is wrong with it.
    """

    place: str
    reason: str


@dataclasses.dataclass(frozen=True)
class LoadedRecords(Generic[AnyRecord]):
    """The records of a source, and its rows that were skipped.

    tokens: token sequences of every record; empty without a tokenizer.
    """

    records: list[AnyRecord]
    skipped: list[SkippedRow]
    tokens: list[tuple[TokenRow, ...]]

    def __str__(self) -> str:
        """Summary: the number of rows used, and a line for each of the first few reasons."""
        rows = len(self.records) + len(self.skipped)
        return f"{len(self.records)} of {rows} rows used" + _reason_lines(self.skipped)


def _reason_lines(skipped: list[SkippedRow]) -> str:
    """Lines of the first few reasons, each with its first few places."""
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
    fields: FieldNames | None = None,
    on_bad_row: Literal["error", "skip"] = "error",
    tokenizer: Tokenizer | None = None,
    max_length: int | None = None,
    data_dir: str | Path | None = None,
) -> LoadedRecords[AnyRecord]:
    """Validated records of one kind (`Prompt`, `Preference`, ... of `records.py`) from a source.

    Args:
      source: a file (`sources.FILES`), a pattern of files, or `tfds:name/config:split`.
      fields: our field name to the source's, where they differ: `{"prompt": "question"}`. An
        empty name hides a field: `{"prompt": ""}` makes a preference's prompt implicit.
      on_bad_row: "error" names the bad rows and stops; "skip" leaves them out and returns them too.
      tokenizer: makes the token rows; None: nothing is tokenised.
      max_length: a row of more tokens (BOS and EOS included) is bad; without a tokenizer, one with
        a field of more bytes than so many tokens can have.
      data_dir: where tensorflow-datasets keeps prepared data; its own default if None.

    Raises:
      UserError: bad rows ("error"), no row that can be used, or a source that cannot be read.
    """
    if on_bad_row not in ("error", "skip"):
        raise UserError(f'on_bad_row is {on_bad_row!r}, wanted "error" or "skip"')
    if unknown := set(fields or {}) - set(FIELDS):
        raise UserError(f"no such fields: {sorted(unknown)}; there are {list(FIELDS)}")
    loaded = LoadedRecords[AnyRecord]([], [], [])
    for place, row in rows_of(source, fields or {}, data_dir):
        try:
            record = _record(row, kind, max_length)
            if tokenizer is not None:
                loaded.tokens.append(_token_rows(record, tokenizer, max_length))
            loaded.records.append(record)
        except BadRow as reason:
            loaded.skipped.append(SkippedRow(place, str(reason)))
    _check_loaded(loaded, short_path(source), may_skip=on_bad_row == "skip")
    return loaded


def _record(row: Row | BadRow, kind: type[AnyRecord], max_length: int | None) -> AnyRecord:
    """Record of a row, without fields of more bytes than `max_length` tokens can have."""
    if isinstance(row, BadRow):
        raise row
    record = kind.parse(row)
    if max_length is not None:
        _check_bytes(record, max_length)
    return record


def _check_loaded(loaded: LoadedRecords[AnyRecord], source: str, *, may_skip: bool) -> None:
    """Refuse a source with bad rows, without any record, or whose responses repeat the prompts."""
    reasons = _reason_lines(loaded.skipped)
    if loaded.skipped and not may_skip:
        bad, rows = len(loaded.skipped), len(loaded.skipped) + len(loaded.records)
        advice = 'mend them, or leave them out with on_bad_row="skip"'
        raise UserError(f"{source}: {bad} of {rows} rows are bad; {advice}{reasons}")
    if not loaded.records:
        raise UserError(f"{source}: no usable row{reasons}")
    if all(map(_responses_repeat_prompt, loaded.records)):
        raise UserError(
            f"{source}: every answer begins with its prompt, which would stand there twice; take "
            "it out of the answers, or, of pairs, hide it with --data.fields prompt "
            '"": what both begin with is the prompt then'
        )


def _responses_repeat_prompt(record: Record) -> bool:
    """Whether all responses of a record are texts that begin with its prompt of several words."""
    fields = vars(record)
    answers = [fields[name] for name in ANSWERS if name in fields]
    texts = [text for part in answers for text in (part if isinstance(part, list) else [part])]
    prompt = fields["prompt"]
    if not texts or not isinstance(prompt, str) or len(prompt.split()) < 2:
        return False
    return all(isinstance(text, str) and text.startswith(prompt) for text in texts)


def _check_bytes(record: Record, max_length: int) -> None:
    """Refuse a field with more bytes than `max_length` tokens can have, before it is tokenized.

    Some tokenizers take sixty times a text's size.
    """
    allowed = LEAST_BYTES + BYTES_A_TOKEN * max_length
    for field, value in vars(record).items():
        if field != "columns" and (size := _bytes_of(value)) > allowed:
            raise BadRow(
                f"{field} has {size:,} bytes, more than {max_length} tokens, the limit, can have"
            )


def _bytes_of(value: object) -> int:
    """Number of bytes of all texts in a value, lists and messages included."""
    size, left = 0, [value]
    while left:
        part = left.pop()
        if isinstance(part, str):
            size += len(part.encode(errors="surrogatepass"))
        elif isinstance(part, dict | list):
            left += part.values() if isinstance(part, dict) else part
    return size


def _token_rows(
    record: Record, tokenizer: Tokenizer, max_length: int | None
) -> tuple[TokenRow, ...]:
    """Token sequences of a record, none longer than `max_length`."""
    try:
        rows = record.token_rows(tokenizer)
    except UserError as refusal:  # of a chat template, say: roles that do not alternate
        raise BadRow(str(refusal)) from None
    longest = max(len(row) for row in rows)
    if max_length is not None and longest > max_length:
        raise BadRow(f"{longest} tokens, the limit is {max_length}")
    return rows
