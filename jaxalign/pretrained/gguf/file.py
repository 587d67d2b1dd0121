"""Validated, memory-mapped reading of GGUF files.

The counts of keys, tensors and numbers in a file's header are checked against its bytes.

Source: the format, https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3.
"""

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np

from jaxalign.errors import UserError
from jaxalign.system.files import as_type, exists, quote, reason, regular_file, short_path

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
Info = tuple[str, tuple[int, ...], int, int]  # name, shape, type and offset of a tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class GGUFTensor:
    """A tensor of a GGUF file, memory-mapped and not dequantised.

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
    """Metadata and tensors of one GGUF file."""

    path: Path
    fields: dict[str, Any]
    tensors: dict[str, GGUFTensor]


def open_gguf(path: str | Path) -> list[GGUFFile]:
    """All files of a model: one, or the parts of a split one.

    Args:
      path: of the file; of several (`NAME-00001-of-00003.gguf`), the first, which has all metadata.

    Raises:
      UserError: it is no whole GGUF file, a part is missing, or a tensor stands in two parts.
    """
    first, *others = _parts(Path(path))
    files = [_read_file(first)]
    count = as_type(files[0].fields.get("split.count", 0), int, f"{short_path(first)}: split.count")
    if max(count, 1) != 1 + len(others):
        raise UserError(
            f"{short_path(path)} is one of {quote(count)} parts; they are found by names such as "
            f"NAME-00001-of-{max(1, min(count, 99999)):05d}.gguf"
        )
    files += [_read_file(part) for part in others]
    for number, file in enumerate(files):
        for other in files[:number]:
            if double := sorted(file.tensors.keys() & other.tensors.keys()):
                raise UserError(
                    f"{short_path(file.path)}: tensor {short_path(double[0])} stands in "
                    f"{other.path.name} too; one of them must go"
                )
    return files


def metadata(file: GGUFFile, prefix: str = "") -> dict[str, Any]:
    """Metadata whose keys begin with a prefix, by the rest of the key."""
    return {name.removeprefix(prefix): value for name, value in file.fields.items()
            if name.startswith(prefix)}  # fmt: skip


def _parts(path: Path) -> list[Path]:
    """Paths of all parts of a split model, by the first."""
    if (match := PART.fullmatch(path.name)) is None:
        return [path]
    name, number, count = match.groups()
    if int(number) != 1:
        raise UserError(f"{path} is a later part; give the first, {name}-00001-of-{count}.gguf")
    paths = [path]
    for i in range(2, int(count) + 1):
        paths.append(path.with_name(f"{name}-{i:05d}-of-{count}.gguf"))
        if not exists(paths[-1]):
            raise UserError(f"{short_path(paths[-1])} does not exist")
    return paths


def _read_file(path: Path) -> GGUFFile:
    """Metadata and tensors of one file."""
    regular_file(path)
    try:
        return _Reader(path).file()
    except OSError as error:
        raise UserError(f"{short_path(path)} cannot be read: {reason(error)}") from None
    except _DamagedFile as error:
        raise UserError(f"{short_path(path)} is no whole GGUF file ({error})") from None


class _DamagedFile(Exception):
    """A file that is not as its header announces."""


class _Reader:
    """Reader of one file from its start to its end.

    path: of the file.
    at: position of the next byte.
    entries: number of entries of lists read so far.
    """

    def __init__(self, path: Path) -> None:
        if not path.stat().st_size:
            raise _DamagedFile("it is empty")
        self.path, self.at, self.entries = path, 0, 0
        self.bytes = np.memmap(path, mode="r")
        self.header = self.bytes[:LARGEST_HEADER].data

    def file(self) -> GGUFFile:
        """Metadata and tensors of the whole file."""
        if self.take(4).tobytes() != b"GGUF":
            raise _DamagedFile("it does not begin with GGUF")
        if (version := self.number(4)) not in (2, 3):
            raise _DamagedFile(f"version {version}; 2 and 3 are read, in the byte order of x86")
        tensors, keys = self.number(10), self.number(10)
        if max(tensors, keys) > MOST_NAMES:
            raise _DamagedFile(f"it would have {tensors:,} tensors and {keys:,} keys")
        fields: dict[str, Any] = {}
        for _ in range(keys):
            name = self.string("the name of a key")
            if name in fields:
                raise _DamagedFile(f"{quote(name)} stands there twice")
            fields[name] = self.value(name)
        infos = [self.info() for _ in range(tensors)]
        return GGUFFile(path=self.path, fields=fields, tensors=self.tensors(infos, fields))

    def take(self, count: int) -> np.ndarray:
        """Next `count` bytes."""
        if count > self.bytes.size - self.at:
            raise _DamagedFile(f"it ends after {self.bytes.size:,} bytes, within what it announces")
        self.at += count
        return self.bytes[self.at - count : self.at]

    def numbers(self, kind: int, count: int) -> np.ndarray:
        """Next `count` numbers of a type (a key of `NUMBERS`)."""
        dtype = np.dtype(NUMBERS[kind])
        numbers = self.take(count * dtype.itemsize)
        if kind == BOOL and numbers.size and numbers.max() > 1:
            raise _DamagedFile("a yes or no that is neither")
        return numbers.view(dtype)

    def number(self, kind: int) -> Any:
        """Next number of a type (a key of `NUMBERS`)."""
        return self.numbers(kind, 1)[0].item()

    def string(self, name: str) -> str:
        """Next string of the header; `name` is for messages."""
        start = self.at + 8
        self.at = start + int.from_bytes(self.header[self.at : start], "little")
        if self.at > len(self.header):
            raise _DamagedFile(
                f"it ends within what it announces, or has over {LARGEST_HEADER:,} bytes"
            )
        try:
            return str(self.header[start : self.at], "utf-8")
        except UnicodeDecodeError:
            raise UserError(f"{short_path(self.path)}: {short_path(name)} is not UTF-8") from None

    def value(self, name: str) -> Any:
        """Next value, of the key `name`.

        A float32 is the shortest decimal that rounds to it: 1e-5 and not 9.999999747378752e-06.
        """
        kind = self.number(4)
        if kind == STRING:
            return self.string(name)
        if kind == ARRAY:
            return self.array(name)
        if kind not in NUMBERS:
            raise _DamagedFile(f"{quote(name)} is of the unknown type {kind}")
        number = self.number(kind)
        return float(str(np.float32(number))) if kind == FLOAT32 else number

    def array(self, name: str) -> list[Any]:
        """Next value, of the key `name`, that is a list."""
        kind, count = self.number(4), self.number(10)
        self.entries += count
        if self.entries > MOST_ENTRIES:
            raise _DamagedFile(f"{quote(name)} would have {count:,} entries, which are too many")
        if kind == STRING:
            return [self.string(name) for _ in range(count)]
        if kind not in NUMBERS:
            raise _DamagedFile(f"{quote(name)} is a list of the type {kind}, which is not read")
        return self.numbers(kind, count).tolist()

    def info(self) -> Info:
        """Name, shape, type and offset of the next tensor."""
        name, dimensions = self.string("the name of a tensor"), self.number(4)
        if not 1 <= dimensions <= DIMENSIONS:
            raise _DamagedFile(f"tensor {quote(name)} has {dimensions} dimensions")
        return (
            name,
            tuple(self.numbers(10, dimensions).tolist()),
            self.number(4),
            self.number(10),
        )

    def tensors(self, infos: list[Info], fields: dict[str, Any]) -> dict[str, GGUFTensor]:
        """All tensors by name, which lie one after another behind the header."""
        alignment = fields.get(ALIGNMENT, 32)
        if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
            raise _DamagedFile(f"{ALIGNMENT} is {quote(alignment)}, no power of two")
        start, end = self.at + -self.at % alignment, 0
        tensors: dict[str, GGUFTensor] = {}
        for name, shape, kind, offset in sorted(infos, key=lambda info: info[3]):
            if name in tensors:
                raise _DamagedFile(f"tensor {quote(name)} stands there twice")
            if offset < end or offset % alignment:
                raise _DamagedFile(
                    f"tensor {quote(name)} does not begin where the one before it ends"
                )
            self.at = start + offset
            tensors[name] = self.tensor(name, shape, kind)
            end = self.at - start
        return {name: tensors[name] for name, *_ in infos}

    def tensor(self, name: str, shape: tuple[int, ...], kind: int) -> GGUFTensor:
        """Tensor at the current position."""
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

        try:
            tensor_type = GGMLQuantizationType(kind)
        except ValueError:
            raise _DamagedFile(f"tensor {quote(name)} is of the unknown type {kind}") from None
        block, size = GGML_QUANT_SIZES[tensor_type]
        columns, *rows = shape
        if columns % block or 0 in shape:
            raise _DamagedFile(
                f"tensor {quote(name)} has the shape {shape}, no whole blocks of {block}"
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
