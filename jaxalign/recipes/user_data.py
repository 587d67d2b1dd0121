"""A user's rows as token rows: read, tokenised, bad ones reported."""

import dataclasses
import functools
import tempfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic

import numpy as np

from jaxalign.config.data import DataConfig
from jaxalign.config.lora import LoraConfig
from jaxalign.config.model import TokenizerConfig
from jaxalign.data.chat import TokenRow
from jaxalign.data.disk_rows import chosen, column, joined
from jaxalign.data.formats import AnyRecord, LoadedRecords, load_records
from jaxalign.data.held_out import held_out_rows
from jaxalign.data.mixture import mixed_rows
from jaxalign.data.records import Record
from jaxalign.data.sources import FILES
from jaxalign.data.tokenizer import Tokenizer
from jaxalign.data.tokenizer_training import train_tokenizer
from jaxalign.errors import UserError, one_line, printable
from jaxalign.recipes.text_models import TextModel, start_of
from jaxalign.system.console import phase, tell, warn
from jaxalign.system.files import make_directory, write_atomically


def with_max_length(data: DataConfig, model: TextModel | None) -> DataConfig:
    """The data settings with the largest number of tokens of a row: as given, or as suits the
    model, and no more than it reads. None: a model that is yet to be made.
    """
    length = data.max_length or start_of(model, LoraConfig()).length
    length = length if model is None else min(length, model.max_length)
    return dataclasses.replace(data, max_length=length)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rows(Generic[AnyRecord]):
    """The usable rows of a source, in its order.

    records: what each of them says.
    tokens: the token rows of each: one, two for preferences, one an answer for rankings.
    """

    records: Sequence[AnyRecord]
    tokens: Sequence[tuple[TokenRow, ...]]

    def __len__(self) -> int:
        return len(self.records)

    @property
    def texts(self) -> Sequence[TokenRow]:
        """The token rows of records that have one each."""
        return column(self.tokens, 0)

    def where(self, kept: Callable[[AnyRecord], bool]) -> "Rows[AnyRecord]":
        """The rows whose record meets a condition."""
        return self.at(np.array([kept(record) for record in self.records], bool))

    def at(self, kept: np.ndarray) -> "Rows[AnyRecord]":
        """The rows where `kept`, `[N]` bool, is true."""
        return self.take(np.flatnonzero(kept))

    def take(self, index: np.ndarray) -> "Rows[AnyRecord]":
        """The rows at these positions."""
        return Rows(records=chosen(self.records, index), tokens=chosen(self.tokens, index))

    def __add__(self, other: "Rows[AnyRecord]") -> "Rows[AnyRecord]":
        """The rows of both, one behind the other."""
        records, tokens = joined(self.records, other.records), joined(self.tokens, other.tokens)
        return Rows(records=records, tokens=tokens)


def read_rows(
    data: DataConfig,
    kind: type[AnyRecord],
    *,
    tokenizer: Tokenizer,
    log: Path | None,
    source: str | None = None,
) -> Rows[AnyRecord]:
    """The usable rows of a source, each tokenised once; bad ones stop the run or are named.

    Args:
      data: the source, its limits, and what to do with bad rows.
      kind: of record: `Prompt`, `Preference`, ... of `data/records.py`.
      tokenizer: makes the tokens.
      log: directory in which skipped rows are listed, and on whose disk rows are kept where that is
        asked for; None: on the terminal, and the disk of temporary files.
      source: read instead of `path`.
    """
    source = data.path if source is None else source
    folder = None
    if data.streaming:
        folder = Path(tempfile.gettempdir()) if log is None else make_directory(log)
    with phase(f"reading {printable(source)}" if source else "reading rows"):
        loaded = _load(data, source, kind, tokenizer, folder)
    report_long(source, loaded, data.longest)
    if bad := [f"{row.place}: {row.reason}" for row in loaded.skipped if not row.length]:
        report_skipped(source, bad, log, name=_log_name(data, source))
    tell(f"{printable(source)}: {summary_of(loaded.tokens)}")
    return Rows(records=loaded.records, tokens=loaded.tokens)


def summary_of(tokens: Sequence[Sequence[TokenRow]]) -> str:
    """Number of rows, and how long their texts are, for people."""
    lengths = np.array([len(row) for rows in tokens for row in rows])
    if not len(lengths):
        return f"{len(tokens):,} rows"
    least, median, most_of_them, largest = np.quantile(lengths, [0, 0.5, 0.9, 1])
    return (
        f"{len(tokens):,} rows; tokens of a text: {least:.0f} at least, median {median:.0f}, "
        f"90% up to {most_of_them:.0f}, at most {largest:.0f}"
    )


def read_split(
    data: DataConfig,
    kind: type[AnyRecord],
    *,
    seed: int,
    **reading: Any,
) -> tuple[Rows[AnyRecord], Rows[Any]]:
    """The usable rows to train on, of `path` or mixed of several sources, and those held out: of
    `evaluation_path`, or a share of the others; none where neither is given.

    Args:
      kind: of record, as in `read_rows`.
      seed: of the share that is held out, and of what is drawn for a mixture.
      reading: `tokenizer` and `log`, as in `read_rows`.
    """
    parts = [read_rows(data, kind, **reading, source=source) for source in data.sources]
    rows = functools.reduce(Rows.__add__, parts)
    apart = _held_out(data, rows.records, seed)
    training = _mixed(data, rows, [len(part) for part in parts], ~apart, seed)
    if data.evaluation_path:
        reading |= {"source": data.evaluation_path}
        return training, read_rows(data, kind, **reading)
    if apart.any():
        tell(f"{printable(data.source)}: {apart.sum():,} of the rows are held out")
    return training, rows.at(apart)


def _mixed(
    data: DataConfig, rows: Rows[AnyRecord], sizes: Sequence[int], kept: np.ndarray, seed: int
) -> Rows[AnyRecord]:
    """The rows that are kept, those of each source of a mixture as its weight says."""
    if not data.mixture:
        return rows.at(kept)
    source_of = np.repeat(np.arange(len(sizes)), sizes)
    parts = [np.flatnonzero(kept & (source_of == number)) for number in range(len(sizes))]
    drawn = mixed_rows([len(part) for part in parts], [*data.mixture.values()], seed)
    for source, part, taken in zip(data.mixture, parts, drawn, strict=True):
        share = len(taken) / sum(map(len, drawn))
        tell(f"{printable(source)}: {len(taken):,} of {len(part):,} rows an epoch, {share:.1%}")
    return rows.take(
        np.concatenate([part[taken] for part, taken in zip(parts, drawn, strict=True)])
    )


def read_texts(data: DataConfig, kind: type[AnyRecord], *, seed: int) -> list[AnyRecord]:
    """The records that a tokenizer is trained on, before any is tokenised: none that is held out.

    Skipped rows are reported by `read_split` later.
    """
    loaded = [_load(data, source, kind, None).records for source in data.sources]
    records = [record for part in loaded for record in part]
    apart = _held_out(data, records, seed)
    return [record for record, away in zip(records, apart, strict=True) if not away]


def _held_out(data: DataConfig, records: Sequence[Record], seed: int) -> np.ndarray:
    """`[N]` bool, true for the records of `path` that are held out."""
    if data.evaluation_share is None:
        return np.zeros(len(records), bool)
    return held_out_rows(records, share=data.evaluation_share, seed=seed)


def _load(
    data: DataConfig,
    source: str,
    kind: type[AnyRecord],
    tokenizer: Tokenizer | None,
    folder: Path | None = None,
) -> LoadedRecords[AnyRecord]:
    if not source:
        raise UserError(f"--data.path is empty; give {FILES}")
    return load_records(
        source,
        kind,
        fields=data.fields,
        on_bad_row=data.on_bad_row,
        tokenizer=tokenizer,
        max_length=data.max_length,
        on_long_row=data.on_long_row,
        text=data.text,
        folder=folder,
    )


def report_long(source: str, loaded: LoadedRecords, max_length: int) -> None:
    """Report how many rows were too long, and were cut or left out."""
    left_out = [row.length for row in loaded.skipped if row.length]
    total = len(loaded.records) + len(loaded.skipped)
    for lengths, what in ((loaded.cut, "cut"), (left_out, "left out")):
        if lengths:
            line = (
                f"{source}: {len(lengths):,} of {total:,} rows {what} for more than "
                f"--max_length {max_length:,} tokens, the longest {max(lengths):,}"
            )
            warn(printable(line))


def _log_name(data: DataConfig, source: str) -> str:
    """Name of the list of skipped rows: of two sources whose files have one name each its own."""
    names = [Path(other).name for other in {*data.sources, data.evaluation_path} if other]
    name = Path(source).name[:100]
    if names.count(Path(source).name) > 1:
        name += f"_{zlib.crc32(source.encode()):08x}"
    return f"skipped_rows_{name}.txt"


def report_skipped(source: str, lines: list[str], log: Path | None, *, name: str) -> None:
    """Report rows that were left out: all in the file of that name, or else on the terminal."""
    warn(printable(f"{source}: skipped {len(lines)} bad rows"))
    named = lines if log is None else lines[:10]
    warn("\n".join(f"  {one_line(line)}" for line in named))
    if log is not None:
        path = make_directory(log) / name
        write_atomically(path, "".join(f"{line}\n" for line in lines).encode())
        warn(f"  all of them: {path}")


def learn_tokenizer(config: TokenizerConfig, records: Sequence[Record]) -> Tokenizer:
    """A tokenizer trained on all texts of the records."""
    texts = [
        text
        for record in records
        for field, value in vars(record).items()
        if field != "variables"  # a learned tokenizer has no chat template
        for text in texts_of(value)
    ]
    return train_tokenizer(texts, vocab_size=config.vocab_size, kind=config.kind)


def texts_of(value: Any) -> list[str]:
    """All texts within a value: a text, a message with its speaker, or lists of either; labels and
    numbers have none.

    >>> texts_of([[{"role": "user", "content": "Why?"}], "So.", True])
    ['User: Why?\\n', 'So.']
    """
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [f"{value['role'].capitalize()}: {value['content']}\n"]
    return [text for part in value for text in texts_of(part)] if isinstance(value, list) else []
