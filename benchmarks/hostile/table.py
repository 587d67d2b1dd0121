"""The table: kinds down, outcomes across."""

from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version

from benchmarks.hostile.judge import OUTCOMES
from benchmarks.hostile.pool import Outcome

TITLES = {"line": "one clear line", "memory": "memory", "lost": "lost or mixed"}


def counts(outcomes: Sequence[Outcome]) -> dict[str, Counter[str]]:
    """Outcomes of each kind, in the order of the kinds, and of all."""
    found: dict[str, Counter[str]] = {}
    for outcome in outcomes:
        for kind in (outcome.trial.kind, "all"):
            found.setdefault(kind, Counter())[outcome.outcome] += 1
    return {kind: found[kind] for kind in sorted(found, key=lambda kind: (kind == "all", kind))}


def columns(outcomes: Sequence[Outcome]) -> list[str]:
    """The outcomes that have a column: "broken" only where there is one."""
    seen = {outcome.outcome for outcome in outcomes}
    return [name for name in OUTCOMES if name != "broken" or name in seen]


def table(outcomes: Sequence[Outcome]) -> list[list[str]]:
    """Rows of the table, the header first."""
    names = columns(outcomes)
    rows = [["kind", "tried", *(TITLES.get(name, name) for name in names)]]
    for kind, number in counts(outcomes).items():
        rows.append([kind, str(number.total()), *(str(number[name] or "") for name in names)])
    return rows


def summary(outcomes: Sequence[Outcome]) -> str:
    """The table for a terminal."""
    rows = table(outcomes)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([f"{row[0]:<{widths[0]}}", *cells]))
    return "\n".join(lines)


def markdown(outcomes: Sequence[Outcome], tree: str, seconds: float) -> str:
    """The table as a page."""
    rows = table(outcomes)
    align = ["|:--|", *("--:|" for _ in rows[0][1:])]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    packages = ", ".join(f"{name} {version(name)}" for name in ("jax", "numpy", "orbax-checkpoint"))
    meanings = [f"- {TITLES.get(name, name)}: {text}" for name, text in OUTCOMES.items()]
    return "\n".join(
        [
            "# Hostile inputs and faults",
            "",
            f"`python -m benchmarks.hostile`{f', {tree}' if tree else ''}; {packages}; "
            f"{seconds / 60:.0f} minutes on two CPU cores.",
            "",
            *(lines[0], "".join(align), *lines[1:]),
            "",
            *meanings,
            "",
        ]
    )
