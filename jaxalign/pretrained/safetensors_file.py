"""Validated, memory-mapped reading of one or several safetensors files."""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxalign.errors import UserError
from jaxalign.pretrained.weights import Weights
from jaxalign.system.files import json_of, reason, regular_file, short_path

LARGEST_HEADER = 2**25  # bytes; a model of 60,000 tensors has 6 MB
FLOATS = ("F64", "F32", "F16", "BF16")


@contextlib.contextmanager
def open_safetensors(files: Iterable[Path], where: str) -> Iterator[Weights]:
    """Tensors of all files, within a context.

    Args:
      files: paths that exist.
      where: their name together, for messages.

    Raises:
      UserError: a file is damaged, or a tensor stands in two of them.
    """
    with contextlib.ExitStack() as stack:
        opened: dict[str, tuple[Any, Path]] = {}
        for file in files:
            reader = stack.enter_context(_open(file))
            for name in reader.keys():  # noqa: SIM118 (it is no dict)
                if name in opened:
                    raise UserError(
                        f"{where}: tensor {short_path(name)} stands in {opened[name][1].name} and "
                        f"in {file.name}; one of them must go"
                    )
                opened[name] = reader, file

        def rows(name: str, selection: slice) -> np.ndarray:
            reader, file = opened[name]
            dtype = reader.get_slice(name).get_dtype()
            if dtype not in FLOATS:
                raise UserError(
                    f"{short_path(file)}: tensor {short_path(name)} is of type {dtype}; weights "
                    f"are one of {', '.join(FLOATS)}"
                )
            whole = selection == slice(None)
            return reader.get_tensor(name) if whole else reader.get_slice(name)[selection]

        shapes = {name: tuple(reader.get_slice(name).get_shape())
                  for name, (reader, _) in opened.items()}  # fmt: skip
        yield Weights(where=where, shapes=shapes, rows=rows)


def header(file: Path) -> dict[str, Any]:
    """Header of a safetensors file: type, shape and place of each tensor, and `__metadata__`.

    Raises:
      UserError: it is damaged, or names a tensor twice.
    """
    size = regular_file(file).stat().st_size
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            if size < 8 or length > min(LARGEST_HEADER, size - 8):
                raise UserError(
                    f"{short_path(file)} is no whole safetensors file (its header would have "
                    f"{length:,} bytes)"
                )
            text = opened.read(length)
    except OSError as error:
        raise UserError(f"{short_path(file)} cannot be read: {reason(error)}") from None
    return json_of(text, dict[str, Any], f"{short_path(file)}: the header")


def metadata(file: Path) -> dict[str, str]:
    """Metadata of a safetensors file: strings by name."""
    return header(file).get("__metadata__") or {}


def _open(file: Path) -> Any:
    """Open file of the package `safetensors`, after its header was validated."""
    from safetensors import SafetensorError, safe_open

    header(file)  # the package lets the last of two equal names win
    try:
        return safe_open(file, framework="numpy")
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"{short_path(file)} is no whole safetensors file ({short_path(str(error))})"
        ) from None
