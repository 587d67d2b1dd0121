"""Runs the adapters on a folder of golden vectors and gathers what agrees."""

import importlib
import json
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import jax
import numpy as np

from benchmarks.conformance.answers import Adapter, Answer, Uncovered
from benchmarks.conformance.cases import Case, read_cases

MODULES = ("pairs", "unpaired", "policy_gradients", "estimators", "exact")


@dataclass
class Row:
    """All cases of one function of one peer.

    known: disagreements whose stated difference was applied. differ: id and what of it.
    uncovered: reason to number of cases. left_out: outputs that no adapter compared.
    """

    peer: str
    function: str
    cases: int = 0
    compared: int = 0
    worst_value: float = 0.0
    worst_gradient: float = 0.0
    known: set[str] = field(default_factory=set)
    differ: list[str] = field(default_factory=list)
    uncovered: dict[str, int] = field(default_factory=dict)
    left_out: set[str] = field(default_factory=set)

    @property
    def verdict(self) -> str:
        """In words."""
        if self.differ:
            return f"DIFFERS ({len(self.differ)} cases)"
        if not self.compared:
            return "not covered"
        return f"agrees after {', '.join(sorted(self.known))}" if self.known else "agrees"


def adapters() -> tuple[dict[str, Adapter], dict[str, str]]:
    """Every adapter by function, and the sentences of all known disagreements."""
    functions, known = {}, {}
    for name in MODULES:
        module = importlib.import_module(f"benchmarks.conformance.adapters.{name}")
        functions |= module.ADAPTERS
        known |= module.KNOWN_DISAGREEMENTS
    return functions, known


def compare(folder: Path, files: Iterable[str] | None = None) -> list[Row]:
    """The rows of every manifest in the folder, or of those files."""
    functions, known = adapters()
    rows: dict[tuple[str, str], Row] = {}
    names = sorted(path.stem for path in folder.glob("*.json")) if files is None else files
    for name in names:
        try:
            cases = read_cases(folder, name)
        except (KeyError, OSError, ValueError, StopIteration, zipfile.BadZipFile) as error:
            rows[name, name] = Row(name, name, differ=[f"cannot be read: {error!r}"])
            continue
        for case in cases:
            row = rows.setdefault((case.peer, case.function), Row(case.peer, case.function))
            compare_case(row, case, functions.get(case.function), known)
    return list(rows.values())


def compare_case(row: Row, case: Case, adapter: Adapter | None, known: dict[str, str]) -> None:
    """One case into its row."""
    row.cases += 1
    if adapter is None:
        answer = Uncovered("no adapter for this function")
    else:
        try:
            with jax.enable_x64(True):
                answer = adapter(case)
        except Exception as error:  # whatever it is, the run goes on and says so
            row.differ.append(f"{case.id}: {type(error).__name__}: {error}".splitlines()[0])
            return
    if isinstance(answer, Uncovered):
        row.uncovered[answer.reason] = row.uncovered.get(answer.reason, 0) + 1
        return
    row.compared += 1
    row.left_out |= case.outputs.keys() - answer.outputs.keys()
    for name, ours in answer.outputs.items():
        reasons = [part for part in answer.known.get(name, "").split(" + ") if part]
        unstated = [reason for reason in reasons if reason not in known]
        if unstated or (ours is None and not reasons):
            row.differ.append(f"{case.id}: {name}: no stated disagreement {unstated}")
            continue
        row.known |= set(reasons)
        if ours is None:
            continue
        error = worst_error(ours, case.outputs[name], answer.where.get(name))
        if name.startswith("grad"):
            row.worst_gradient = max(row.worst_gradient, error)
        else:
            row.worst_value = max(row.worst_value, error)
        if not error <= answer.tolerance:
            row.differ.append(f"{case.id}: {name} by {error:.2g}")


def worst_error(ours, theirs, where=None) -> float:
    """Largest |ours - theirs| / max(1, |theirs|); infinite where shapes or finiteness differ."""
    ours, theirs = np.asarray(ours, float), np.asarray(theirs, float)
    if ours.shape != theirs.shape:
        return float("inf")
    if where is not None:
        chosen = np.broadcast_to(np.asarray(where, bool), ours.shape)
        ours, theirs = ours[chosen], theirs[chosen]
    if not np.isfinite(theirs).all() or not np.isfinite(ours).all():
        return 0.0 if np.array_equal(ours, theirs, equal_nan=True) else float("inf")
    return float(np.max(np.abs(ours - theirs) / np.maximum(1, np.abs(theirs)), initial=0.0))
