"""Sequences of rows on disk, of which memory holds the positions alone.

They read like lists: whatever is computed of rows in memory is computed of these, with the same
bits. Each lies in a file of its own that has no name and goes with the process.
"""

import array
import os
import tempfile
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec
import numpy as np

from jaxalign.data.chat import TokenRow
from jaxalign.errors import UserError

Item = TypeVar("Item")
BUFFER = 2**20  # bytes that are written at once


class DiskList(Sequence[Item], Generic[Item]):
    """A list whose items are written to a file as they are appended, and read when asked for.

    Args:
      folder: on whose disk the file lies.
      pack: item -> bytes.
      unpack: bytes -> an equal item.
    """

    def __init__(
        self, folder: Path, pack: Callable[[Item], bytes], unpack: Callable[[bytes], Item]
    ):
        self.file, name = tempfile.mkstemp(dir=folder, prefix=".rows-")
        os.unlink(name)
        weakref.finalize(self, os.close, self.file)
        self.pack, self.unpack = pack, unpack
        self.ends = array.array("q", [0])
        self.unwritten = bytearray()

    def append(self, item: Item) -> None:
        """Write an item behind the others."""
        content = self.pack(item)
        self.unwritten += content
        self.ends.append(self.ends[-1] + len(content))
        if len(self.unwritten) > BUFFER:
            self._write()

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Chosen(self, np.arange(len(self))[index])
        at = range(len(self))[index]
        self._write()
        start, end = self.ends[at], self.ends[at + 1]
        return self.unpack(os.pread(self.file, end - start, start))

    def _write(self) -> None:
        while self.unwritten:
            try:
                written = os.write(self.file, self.unwritten)
            except OSError as error:
                raise UserError(f"rows cannot be kept on disk: {error.strerror}") from None
            del self.unwritten[:written]


class Chosen(Sequence[Item], Generic[Item]):
    """Items of a sequence at some positions, each changed by a function when it is asked for.

    Args:
      items: all of them.
      index: `[N]` positions.
      change: item -> item; None: as they are.
    """

    def __init__(
        self,
        items: Sequence[Any],
        index: np.ndarray,
        change: Callable[[Any], Item] | None = None,
    ):
        self.items, self.positions, self.change = items, index, change

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Chosen(self.items, self.positions[index], self.change)
        item = self.items[int(self.positions[index])]
        return item if self.change is None else self.change(item)


class Joined(Sequence[Item], Generic[Item]):
    """Items of two sequences, one behind the other."""

    def __init__(self, one: Sequence[Item], other: Sequence[Item]):
        self.one, self.other = one, other

    def __len__(self) -> int:
        return len(self.one) + len(self.other)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Chosen(self, np.arange(len(self))[index])
        at = range(len(self))[index]
        return self.one[at] if at < len(self.one) else self.other[at - len(self.one)]


def chosen(items: Sequence[Item], index: np.ndarray) -> Sequence[Item]:
    """Items at some positions: of a list a list, of a sequence on disk one on disk."""
    return [items[i] for i in index] if isinstance(items, list) else Chosen(items, index)


def joined(one: Sequence[Item], other: Sequence[Item]) -> Sequence[Item]:
    """Items of two sequences, one behind the other, as `chosen` does."""
    if isinstance(one, list) and isinstance(other, list):
        return one + other
    return Joined(one, other)


def column(groups: Sequence[Sequence[Item]], number: int) -> Sequence[Item]:
    """One item of every group, as `chosen` does."""
    if isinstance(groups, list):
        return [group[number] for group in groups]
    return Chosen(groups, np.arange(len(groups)), lambda group: group[number])


def disk_records(folder: Path, kind: type[Item]) -> DiskList[Item]:
    """An empty list of records of one kind."""

    def pack(record: Item) -> bytes:
        try:
            return msgspec.msgpack.encode(vars(record))
        except (TypeError, OverflowError, ValueError) as error:
            raise UserError(f"a row cannot be kept on disk: {error}") from None

    return DiskList(folder, pack, lambda content: kind(**msgspec.msgpack.decode(content)))


def disk_tokens(folder: Path) -> DiskList[tuple[TokenRow, ...]]:
    """An empty list of the token rows of records."""
    return DiskList(folder, _pack_rows, _unpack_rows)


def _pack_rows(rows: tuple[TokenRow, ...]) -> bytes:
    """Number of rows and their lengths, then ids and flags of each, as int32 and int8."""
    head = np.array([len(rows), *map(len, rows)], np.int32).tobytes()
    bodies = (
        np.asarray(row.tokens, np.int32).tobytes() + np.asarray(row.is_response, bool).tobytes()
        for row in rows
    )
    return head + b"".join(bodies)


def _unpack_rows(content: bytes) -> tuple[TokenRow, ...]:
    count = int(np.frombuffer(content, np.int32, 1)[0])
    lengths = np.frombuffer(content, np.int32, count, offset=4)
    rows, at = [], 4 * (count + 1)
    for length in map(int, lengths):
        tokens = np.frombuffer(content, np.int32, length, offset=at)
        flags = np.frombuffer(content, bool, length, offset=at + 4 * length)
        rows.append(TokenRow(tokens, flags))
        at += 5 * length
    return tuple(rows)
