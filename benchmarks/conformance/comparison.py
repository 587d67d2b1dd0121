"""Golden vectors against our numbers: what agrees, what differs, what nobody compared."""

import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import jaxalign
from benchmarks.conformance.answers import Adapter, Answer, Uncovered
from benchmarks.conformance.cases import Case, read_cases

PACKAGE = Path(jaxalign.__file__).parent


@dataclass(frozen=True)
class Row:
    """One case: what was compared, and how far apart. errors: output name to worst error."""

    case: Case
    errors: Mapping[str, float]
    differing: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    uncompared: tuple[str, ...] = ()
    uncovered: str = ""
    failure: str = ""


def _error(name: str, ours, theirs: np.ndarray, where, floor) -> float:
    """Largest |ours - theirs| / max(floor, |theirs|); infinite where just one is finite."""
    theirs = np.asarray(theirs, np.float64)
    ours = np.asarray(ours, np.float64)
    if ours.shape != theirs.shape:
        raise ValueError(f"{name}: our shape is {ours.shape}, theirs {theirs.shape}")
    kept = np.ones(theirs.shape, bool) if where is None else np.broadcast_to(where, theirs.shape)
    floor = np.broadcast_to(floor, kept.shape)[kept]
    ours, theirs = ours[kept], theirs[kept]
    same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
    finite = np.isfinite(ours) & np.isfinite(theirs)
    with np.errstate(invalid="ignore", over="ignore"):
        errors = np.abs(ours - theirs) / np.maximum(floor, np.abs(theirs))
    errors = np.where(same, 0.0, np.where(finite, errors, np.inf))
    return float(errors.max(initial=0.0))


def compare(case: Case, answer: Answer) -> Row:
    errors, differing = {}, []
    for name, ours in answer.outputs.items():
        if name not in case.outputs:
            raise KeyError(f"the adapter answers {name!r}, which the case does not have")
        if ours is None:
            if name not in answer.known:
                raise ValueError(f"{name}: nothing to compare, and no known disagreement says why")
            continue
        floor = np.maximum(answer.floor, answer.sizes.get(name, 0.0))
        error = _error(name, ours, case.outputs[name], answer.where.get(name), floor)
        errors[name] = error
        if not error <= answer.tolerance:
            differing.append(name)
    return Row(
        case=case,
        errors=errors,
        differing=tuple(differing),
        known=tuple(sorted({key for keys in answer.known.values() for key in keys.split(" + ")})),
        uncompared=tuple(sorted(set(case.outputs) - set(errors))),
    )


def run_case(case: Case, adapter: Adapter | None, disagreements: Mapping[str, str]) -> Row:
    """One case; an adapter's exception becomes the row's failure."""
    if adapter is None:
        return Row(case, {}, uncovered="no adapter for this function")
    try:
        answer = adapter(case)
        if isinstance(answer, Uncovered):
            return Row(case, {}, uncovered=answer.reason)
        row = compare(case, answer)
        missing = set(row.known) - set(disagreements)
        if missing:
            raise KeyError(f"known disagreements without a sentence: {sorted(missing)}")
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        if isinstance(error, ValueError) and PACKAGE in Path(place.filename).parents:
            return Row(case, {}, uncovered=f"ours refuses these settings: {error}")
        where = f"{Path(place.filename).name}:{place.lineno}"
        return Row(
            case, {}, failure=f"{type(error).__name__}: {error} ({where})".replace("\n", " ")
        )
    return row


def run_file(
    folder: Path,
    file: str,
    adapters: Mapping[str, Adapter],
    disagreements: Mapping[str, str],
    *,
    part: slice = slice(None),
) -> list[Row]:
    """Every case of a manifest, or of a part of it."""
    cases = read_cases(folder, file)[part]
    return [run_case(case, adapters.get(case.function), disagreements) for case in cases]


def is_excused(row: Row) -> bool:
    """Nothing to compare, since the peer failed or has no finite number."""
    return not (row.errors or row.uncovered or row.failure)


def is_wrong(row: Row) -> bool:
    return bool(row.differing or row.failure)
