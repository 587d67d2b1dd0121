"""Loading of users' data: every row becomes a record or is named with its place and its fault."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Generic, Literal, TypeVar

from jaxalign.data.chat import TokenRow
from jaxalign.data.disk_rows import disk_records, disk_tokens
from jaxalign.data.long_rows import cut_record, without_far_ends
from jaxalign.data.records import FIELDS, Record, Unpaired
from jaxalign.data.row_fields import BadRow, Row
from jaxalign.data.sources import FieldNames, TextUnit, rows_of
from jaxalign.data.tokenizer import Tokenizer
from jaxalign.data.unpaired_rows import unpaired_rows
from jaxalign.errors import UserError
from jaxalign.system.files import short_path

OnLongRow = Literal["error", "truncate", "skip"]
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
    length: its tokens, where they are too many; 0: something else is wrong.
    """

    place: str
    reason: str
    length: int = 0


@dataclasses.dataclass(frozen=True)
class LoadedRecords(Generic[AnyRecord]):
    """The records of a source, and its rows that were skipped.

    tokens: token sequences of every record; empty without a tokenizer.
    cut: what the records that were cut had in tokens.
    """

    records: Sequence[AnyRecord]
    skipped: list[SkippedRow]
    tokens: Sequence[tuple[TokenRow, ...]]
    cut: list[int]

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
    on_long_row: OnLongRow = "error",
    text: TextUnit | None = None,
    folder: Path | None = None,
    data_dir: str | Path | None = None,
) -> LoadedRecords[AnyRecord]:
    """Validated records of one kind (`Prompt`, `Preference`, ... of `records.py`) from a source.

    Args:
      source: a file (`sources.FILES`), a pattern of files, or `tfds:name/config:split`.
      fields: our field name to the source's, where they differ: `{"prompt": "question"}`. An
        empty name hides a field: `{"prompt": ""}` makes a preference's prompt implicit.
      on_bad_row: "error" names the bad rows and stops; "skip" leaves them out and returns them too.
      tokenizer: makes the token rows; None: nothing is tokenised.
      max_length: a row of more tokens (BOS and EOS included) is too long; without a tokenizer, one
        with a field of more bytes than so many tokens can have.
      on_long_row: "error" takes a row that is too long as a bad one; "truncate" cuts it
        (`long_rows.py`); "skip" leaves it out.
      text: what of a .txt file is a row; None: a line of a single file, each file of several.
      folder: on whose disk records and tokens are kept; None: in memory.
      data_dir: where tensorflow-datasets keeps prepared data; its own default if None.

    Raises:
      UserError: bad rows ("error"), no row that can be used, or a source that cannot be read.
    """
    if on_bad_row not in ("error", "skip"):
        raise UserError(f'on_bad_row is {on_bad_row!r}, wanted "error" or "skip"')
    if unknown := set(fields or {}) - set(FIELDS):
        raise UserError(f"no such fields: {sorted(unknown)}; there are {list(FIELDS)}")
    records, tokens = [], []
    if folder is not None:
        records, tokens = disk_records(folder, kind), disk_tokens(folder)
    loaded = LoadedRecords[AnyRecord](records, [], tokens, [])
    parser = RowParser(kind, tokenizer, max_length, truncate=on_long_row == "truncate")
    rows = rows_of(source, fields or {}, data_dir, text)
    for place, row in unpaired_rows(rows) if kind is Unpaired else rows:
        try:
            parsed = parser.parse(row)
        except LongRow as long:
            loaded.skipped.append(SkippedRow(place, str(long), long.length))
        except BadRow as reason:
            loaded.skipped.append(SkippedRow(place, str(reason)))
        else:
            records.append(parsed.record)
            if parsed.tokens:
                tokens.append(parsed.tokens)
            if parsed.cut:
                loaded.cut.append(parsed.cut)
    skipped = {"bad": on_bad_row == "skip", "long": "skip" in (on_bad_row, on_long_row)}
    _check_loaded(loaded, short_path(source), skipped, max_length)
    return loaded


@dataclasses.dataclass(frozen=True)
class ParsedRow(Generic[AnyRecord]):
    """A row that can be used.

    record: what it says.
    tokens: its token rows; empty without a tokenizer.
    cut: how many tokens it had before it was cut, or as many as were read of them; 0: it is whole.
    """

    record: AnyRecord
    tokens: tuple[TokenRow, ...]
    cut: int = 0


@dataclasses.dataclass(frozen=True)
class RowParser(Generic[AnyRecord]):
    """The way from a row to its record and its tokens; arguments as in `load_records`.

    truncate: cut rows that are too long.
    """

    kind: type[AnyRecord]
    tokenizer: Tokenizer | None
    max_length: int | None
    truncate: bool

    def parse(self, row: Row | BadRow) -> ParsedRow[AnyRecord]:
        """Record and tokens of a row.

        Raises:
          BadRow: the row cannot be used; `LongRow`: it has too many tokens.
        """
        if isinstance(row, BadRow):
            raise row
        record = self.kind.parse(row)
        if self.max_length is not None:
            record = self._within_bytes(record, self.max_length)
        if self.tokenizer is None:
            return ParsedRow(record, ())
        try:
            rows = record.token_rows(self.tokenizer)
            longest = max(len(row) for row in rows)
            if self.max_length is None or longest <= self.max_length:
                return ParsedRow(record, rows)
            if not self.truncate:
                raise LongRow(f"{longest} tokens, the limit is {self.max_length}", longest)
            return ParsedRow(*cut_record(record, self.tokenizer, self.max_length), cut=longest)
        except UserError as refusal:  # of a chat template, say: roles that do not alternate
            raise BadRow(str(refusal)) from None

    def _within_bytes(self, record: AnyRecord, max_length: int) -> AnyRecord:
        """The record if no field has more bytes than `max_length` tokens can have, which are too
        many to tokenise: some tokenizers take sixty times a text's size.
        """
        allowed = LEAST_BYTES + BYTES_A_TOKEN * max_length
        for field, value in vars(record).items():
            if field == "columns" or (size := _bytes_of(value)) <= allowed:
                continue
            if self.truncate and field != "variables":
                return without_far_ends(record, allowed)
            raise LongRow(
                f"{field} has {size:,} bytes, more than {max_length} tokens, the limit, can have",
                max_length + 1,
            )
        return record


class LongRow(BadRow):
    """A row of too many tokens.

    length: how many, or as many as are certain.
    """

    def __init__(self, reason: str, length: int):
        super().__init__(reason)
        self.length = length


def _check_loaded(
    loaded: LoadedRecords[AnyRecord],
    source: str,
    may_skip: Mapping[str, bool],
    max_length: int | None,
) -> None:
    """Refuse a source with bad or long rows, without any record, or whose responses repeat the
    prompts.
    """
    reasons, rows = _reason_lines(loaded.skipped), len(loaded.skipped) + len(loaded.records)
    long = [row.length for row in loaded.skipped if row.length]
    bad, faults = len(loaded.skipped) - len(long), []
    if bad and not may_skip["bad"]:
        misses = any(row.reason.startswith("no '") for row in loaded.skipped)
        named = "name their fields with --data.fields, " if misses else ""
        advice = f"mend them, {named}or leave them out with --data.on_bad_row skip"
        faults.append(f"{bad} of {rows} rows are bad; {advice}")
    if long and not may_skip["long"]:
        faults.append(
            f"{len(long)} of {rows} rows have more than {max_length:,} tokens, the longest "
            f"{max(long):,}; give a larger --max_length, or --data.on_long_row truncate or skip"
        )
    if faults:
        raise UserError(f"{source}: {'; '.join(faults)}{reasons}")
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
