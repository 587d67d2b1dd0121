"""GGUF files, opened: one or several, memory-mapped."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from jaxalign.errors import UserError

PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")


def open_gguf(path: str | Path) -> list[Any]:
    """The readers of a file, or of all parts of a model that was split.

    Args:
      path: of the file; of several (`NAME-00001-of-00003.gguf`), the first, which has all metadata.

    Raises:
      UserError: it is no whole GGUF file, or a part is missing.
    """
    readers = [_reader(part) for part in _parts(Path(path))]
    count = metadata(readers[0], "split.").get("count", 0)
    if max(count, 1) != len(readers):
        raise UserError(
            f"{path} is one of {count} parts; they are found by names such as "
            f"NAME-00001-of-{count:05d}.gguf"
        )
    return readers


def _parts(path: Path) -> list[Path]:
    if (named := PART.fullmatch(path.name)) is None:
        return [path]
    name, number, count = named.groups()
    if int(number) != 1:
        raise UserError(f"{path} is a later part; give the first, {name}-00001-of-{count}.gguf")
    numbers = range(1, int(count) + 1)
    return [path.with_name(f"{name}-{i:05d}-of-{count}.gguf") for i in numbers]


def _reader(path: Path) -> Any:
    from gguf import GGUFReader

    if not path.is_file():
        raise UserError(f"{path} does not exist")
    try:
        return GGUFReader(path)
    except (ValueError, IndexError, KeyError) as error:
        raise UserError(f"{path} is no whole GGUF file ({error})") from None


def metadata(reader: Any, prefix: str = "") -> dict[str, Any]:
    """The metadata below a prefix, without it.

    A float32 is the shortest decimal that rounds to it: 1e-5 and not 9.999999747378752e-06.
    """
    from gguf import GGUFValueType

    found = {}
    for name, field in reader.fields.items():
        if name.startswith(prefix):
            try:
                value = field.contents()
            except UnicodeDecodeError:
                raise UserError(f"{reader.data.filename}: {name} is not UTF-8") from None
            short = field.types == [GGUFValueType.FLOAT32]
            found[name.removeprefix(prefix)] = float(str(np.float32(value))) if short else value
    return found
