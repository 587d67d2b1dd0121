"""Reads a folder of golden vectors: `<name>.json` lists cases, `<name>.npz` holds their arrays."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Case:
    """One call of one function of one peer.

    folder, file: where the manifest lies, and its name without suffix. peer: library and version.
    info: everything else that the manifest says of this case (dtype, metrics, notes, ...).
    """

    folder: Path
    file: str
    id: str
    peer: str
    function: str
    args: dict[str, Any]
    batch: str
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    info: dict[str, Any]


@cache
def _arrays(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return dict(archive)


def _lookup(folder: Path, file: str, keys: dict[str, str]) -> dict[str, np.ndarray]:
    found = {}
    for name, key in keys.items():
        other, _, inner = key.rpartition(":")
        found[name] = _arrays(folder / (other or f"{file}.npz"))[inner]
    return found


@cache
def read_cases(folder: Path, file: str) -> tuple[Case, ...]:
    """Every case of `folder/file.json`."""
    manifest = json.loads((folder / f"{file}.json").read_text())
    own = ("id", "function", "args", "batch", "inputs", "outputs")
    library, version = next(iter(manifest["peer"].items()))
    return tuple(
        Case(
            folder=folder,
            file=file,
            id=case["id"],
            peer=f"{library} {version}",
            function=case["function"],
            args=case["args"],
            batch=case.get("batch") or "",
            inputs=_lookup(folder, file, case["inputs"]),
            outputs=_lookup(folder, file, case["outputs"]),
            info={key: value for key, value in case.items() if key not in own},
        )
        for case in manifest["cases"]
    )
