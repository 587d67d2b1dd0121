"""Reads the golden vectors in tests/data/oracles: cases of independent libraries."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parents[1] / "data" / "oracles"


@dataclass(frozen=True)
class Case:
    function: str
    args: dict
    batch: str
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]


@cache
def _arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / name) as archive:
        return dict(archive)


def _lookup(file: str, keys: dict[str, str]) -> dict[str, np.ndarray]:
    found = {}
    for name, key in keys.items():
        other, _, inner = key.rpartition(":")
        found[name] = _arrays(other or file)[inner]
    return found


def cases(name: str, function: str = "") -> list[Case]:
    """Every stored case of peer file `name` whose function name contains `function`."""
    manifest = json.loads((FOLDER / f"{name}.json").read_text())
    found = [
        Case(
            function=case["function"],
            args=case["args"],
            batch=case.get("batch", ""),
            inputs=_lookup(f"{name}.npz", case["inputs"]),
            outputs=_lookup(f"{name}.npz", case["outputs"]),
        )
        for case in manifest["cases"]
        if function in case["function"]
    ]
    assert found, f"no case of {name} matches {function!r}"
    return found
