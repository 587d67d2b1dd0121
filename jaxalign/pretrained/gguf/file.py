"""GGUF files, opened: one or several, memory-mapped.

A file's header says how many keys, tensors and numbers follow; none is believed beyond the bytes
that are there.

Source: the format, https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3.
"""

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np

from jaxalign.errors import UserError
from jaxalign.system.files import exists, reason, regular_file, shown, shown_path, typed

PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")
NUMBERS = {
    **{0: "u1", 1: "i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4"},
    **{7: "?", 10: "<u8", 11: "<i8", 12: "<f8"},
}
FLOAT32, BOOL, STRING, ARRAY = 6, 7, 8, 9
LARGEST_HEADER = 2**28  # bytes; those of the largest vocabularies have 2^24
MOST_NAMES = 2**17  # of tensors, and of keys
MOST_ENTRIES = 2**22  # of all lists together; the largest vocabularies and their merges have 2^21
DIMENSIONS = 4
ALIGNMENT = "general.alignment"


@dataclasses.dataclass(frozen=True, kw_only=True)
class GGUFTensor:
    """A tensor where it lies in the file.

    tensor_type: a `gguf.GGMLQuantizationType`.
    shape: as the file has it, the columns first.
    data: numbers, or the bytes of blocks; the rows first.
    """

    name: str
    tensor_type: Any
    shape: tuple[int, ...]
    data: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class GGUFFile:
    """The metadata and the tensors of one file."""

    path: Path
    fields: dict[str, Any]
    tensors: dict[str, GGUFTensor]


def open_gguf(path: str | Path) -> list[GGUFFile]:
    """A file, or all parts of a model that was split.

    Args:
      path: of the file; of several (`NAME-00001-of-00003.gguf`), the first, which has all metadata.

    Raises:
      UserError: it is no whole GGUF file, a part is missing, or a tensor stands in two parts.
    """
    first, *others = _parts(Path(path))
    files = [_opened(first)]
    count = typed(files[0].fields.get("split.count", 0), int, f"{shown_path(first)}: split.count")
    if max(count, 1) != 1 + len(others):
        raise UserError(
            f"{shown_path(path)} is one of {shown(count)} parts; they are found by names such as "
            f"NAME-00001-of-{max(1, min(count, 99999)):05d}.gguf"
        )
    files += [_opened(part) for part in others]
    for number, file in enumerate(files):
        for other in files[:number]:
            if double := sorted(file.tensors.keys() & other.tensors.keys()):
                raise UserError(
                    f"{shown_path(file.path)}: tensor {shown_path(double[0])} stands in "
                    f"{other.path.name} too; one of them must go"
                )
    return files


def metadata(file: GGUFFile, prefix: str = "") -> dict[str, Any]:
    """The metadata below a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in file.fields.items()
            if name.startswith(prefix)}  # fmt: skip


def _parts(path: Path) -> list[Path]:
    if (named := PART.fullmatch(path.name)) is None:
        return [path]
    name, number, count = named.groups()
    if int(number) != 1:
        raise UserError(f"{path} is a later part; give the first, {name}-00001-of-{count}.gguf")
    paths = [path]
    for i in range(2, int(count) + 1):
        paths.append(path.with_name(f"{name}-{i:05d}-of-{count}.gguf"))
        if not exists(paths[-1]):
            raise UserError(f"{shown_path(paths[-1])} does not exist")
    return paths


def _opened(path: Path) -> GGUFFile:
    regular_file(path)
    try:
        return _Reader(path).file()
    except OSError as error:
        raise UserError(f"{shown_path(path)} cannot be read: {reason(error)}") from None
    except _Damaged as error:
        raise UserError(f"{shown_path(path)} is no whole GGUF file ({error})") from None


class _Damaged(Exception):
    """What a file says is not what is there."""


class _Reader:
    """Reads a file from its start to its end."""

    def __init__(self, path: Path):
        if not path.stat().st_size:
            raise _Damaged("it is empty")
        self.path, self.at, self.entries = path, 0, 0
        self.bytes = np.memmap(path, mode="r")
        self.header = self.bytes[:LARGEST_HEADER].data

    def file(self) -> GGUFFile:
        """The whole of it."""
        if self.take(4).tobytes() != b"GGUF":
            raise _Damaged("it does not begin with GGUF")
        if (version := self.number(4)) not in (2, 3):
            raise _Damaged(f"version {version}; 2 and 3 are read, in the byte order of x86")
        tensors, keys = self.number(10), self.number(10)
        if max(tensors, keys) > MOST_NAMES:
            raise _Damaged(f"it would have {tensors:,} tensors and {keys:,} keys")
        fields: dict[str, Any] = {}
        for _ in range(keys):
            name = self.string("the name of a key")
            if name in fields:
                raise _Damaged(f"{shown(name)} stands there twice")
            fields[name] = self.value(name)
        infos = [self.info() for _ in range(tensors)]
        return GGUFFile(path=self.path, fields=fields, tensors=self.tensors(infos, fields))

    def take(self, count: int) -> np.ndarray:
        """The next bytes."""
        if count > self.bytes.size - self.at:
            raise _Damaged(f"it ends after {self.bytes.size:,} bytes, within what it announces")
        self.at += count
        return self.bytes[self.at - count : self.at]

    def numbers(self, kind: int, count: int) -> np.ndarray:
        """The next numbers of that kind."""
        dtype = np.dtype(NUMBERS[kind])
        found = self.take(count * dtype.itemsize)
        if kind == BOOL and found.size and found.max() > 1:
            raise _Damaged("a yes or no that is neither")
        return found.view(dtype)

    def number(self, kind: int) -> Any:
        """The next number."""
        return self.numbers(kind, 1)[0].item()

    def string(self, name: str) -> str:
        """The next string, of the header."""
        start = self.at + 8
        self.at = start + int.from_bytes(self.header[self.at : start], "little")
        if self.at > len(self.header):
            raise _Damaged(
                f"it ends within what it announces, or has over {LARGEST_HEADER:,} bytes"
            )
        try:
            return str(self.header[start : self.at], "utf-8")
        except UnicodeDecodeError:
            raise UserError(f"{shown_path(self.path)}: {shown_path(name)} is not UTF-8") from None

    def value(self, name: str) -> Any:
        """The value of a key.

        A float32 is the shortest decimal that rounds to it: 1e-5 and not 9.999999747378752e-06.
        """
        kind = self.number(4)
        if kind == STRING:
            return self.string(name)
        if kind == ARRAY:
            return self.array(name)
        if kind not in NUMBERS:
            raise _Damaged(f"{shown(name)} is of the unknown type {kind}")
        found = self.number(kind)
        return float(str(np.float32(found))) if kind == FLOAT32 else found

    def array(self, name: str) -> list[Any]:
        """The value of a key that is a list."""
        kind, count = self.number(4), self.number(10)
        self.entries += count
        if self.entries > MOST_ENTRIES:
            raise _Damaged(f"{shown(name)} would have {count:,} entries, which are too many")
        if kind == STRING:
            return [self.string(name) for _ in range(count)]
        if kind not in NUMBERS:
            raise _Damaged(f"{shown(name)} is a list of the type {kind}, which is not read")
        return self.numbers(kind, count).tolist()

    def info(self) -> tuple[str, tuple[int, ...], int, int]:
        """Name, shape, type and place of a tensor."""
        name, dimensions = self.string("the name of a tensor"), self.number(4)
        if not 1 <= dimensions <= DIMENSIONS:
            raise _Damaged(f"tensor {shown(name)} has {dimensions} dimensions")
        return (
            name,
            tuple(self.numbers(10, dimensions).tolist()),
            self.number(4),
            self.number(10),
        )

    def tensors(self, infos: list, fields: dict[str, Any]) -> dict[str, GGUFTensor]:
        """All tensors, which lie one after another behind the header."""
        alignment = fields.get(ALIGNMENT, 32)
        if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
            raise _Damaged(f"{ALIGNMENT} is {shown(alignment)}, no power of two")
        start, end = self.at + -self.at % alignment, 0
        found: dict[str, GGUFTensor] = {}
        for name, shape, kind, offset in sorted(infos, key=lambda info: info[3]):
            if name in found:
                raise _Damaged(f"tensor {shown(name)} stands there twice")
            if offset < end or offset % alignment:
                raise _Damaged(f"tensor {shown(name)} does not begin where the one before it ends")
            self.at = start + offset
            found[name] = self.tensor(name, shape, kind)
            end = self.at - start
        return {name: found[name] for name, *_ in infos}

    def tensor(self, name: str, shape: tuple[int, ...], kind: int) -> GGUFTensor:
        """The tensor at this place."""
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

        try:
            tensor_type = GGMLQuantizationType(kind)
        except ValueError:
            raise _Damaged(f"tensor {shown(name)} is of the unknown type {kind}") from None
        block, size = GGML_QUANT_SIZES[tensor_type]
        columns, *rows = shape
        if columns % block or 0 in shape:
            raise _Damaged(
                f"tensor {shown(name)} has the shape {shape}, no whole blocks of {block}"
            )
        count = columns // block * size
        for more in rows:
            count *= more  # Python's numbers have no bound
        data = self.take(count).reshape(*reversed(rows), -1)
        dtype = {"F32": "<f4", "F16": "<f2"}.get(tensor_type.name)
        return GGUFTensor(
            name=name,
            tensor_type=tensor_type,
            shape=shape,
            data=data if dtype is None else data.view(dtype),
        )
