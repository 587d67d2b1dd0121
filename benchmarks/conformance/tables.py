"""Rows of a comparison as tables: a line for each function of each peer."""

from collections import Counter
from collections.abc import Mapping, Sequence

from benchmarks.conformance.comparison import Row, is_excused, is_wrong

HEADER = ("peer", "function", "cases", "compared", "values", "gradients", "verdict")


def _grouped(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    groups = {}
    for row in rows:
        groups.setdefault((row.case.peer, row.case.function), []).append(row)
    return groups


def worst(rows: Sequence[Row], gradients: bool | None = None) -> float | None:
    """Largest error; of gradients or of values only, or of both (None)."""
    found = [
        error
        for row in rows
        for name, error in row.errors.items()
        if gradients is None or name.startswith("grad") == gradients
    ]
    return max(found, default=None)


def _number(error: float | None) -> str:
    return "" if error is None else f"{error:.1e}"


def _verdict(rows: Sequence[Row]) -> str:
    wrong = [row.case.id for row in rows if is_wrong(row)]
    if wrong:
        more = f", and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        return f"DIFFERS ({', '.join(wrong[:5])}{more})"
    if all(row.uncovered for row in rows):
        return "not covered"
    known = sorted({key for row in rows for key in row.known})
    uncovered = sum(bool(row.uncovered) for row in rows)
    part = f"; {uncovered} not covered" if uncovered else ""
    return (f"agrees after: {', '.join(known)}" if known else "agrees") + part


def table(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """The lines under `HEADER`."""
    return [
        (
            peer,
            function,
            str(len(group)),
            str(sum(bool(row.errors) for row in group)),
            _number(worst(group, gradients=False)),
            _number(worst(group, gradients=True)),
            _verdict(group),
        )
        for (peer, function), group in sorted(_grouped(rows).items())
    ]


def remarks(rows: Sequence[Row], disagreements: Mapping[str, str]) -> dict[str, list[str]]:
    """Title to lines: what differs, known disagreements, what is not covered or not compared."""
    differing = [
        f"{row.case.file} {row.case.id} {row.case.function}: "
        + (row.failure or ", ".join(f"{name} {row.errors[name]:.1e}" for name in row.differing))
        for row in rows
        if is_wrong(row)
    ]
    met = sorted({key for row in rows for key in row.known})
    reasons = Counter(
        (row.case.file, row.case.function, row.uncovered) for row in rows if row.uncovered
    )
    skipped = Counter(
        (row.case.file, row.case.function, name)
        for row in rows
        if not row.uncovered and not row.failure
        for name in row.uncompared
    )
    return {
        "Differs": differing,
        "Known disagreements": [f"{key}: {disagreements[key]}" for key in met],
        "Not covered": [
            f"{file} {function}: {reason} ({count} cases)"
            for (file, function, reason), count in sorted(reasons.items())
        ],
        "Outputs not compared": [
            f"{file} {function}: {name} ({count} cases)"
            for (file, function, name), count in sorted(skipped.items())
        ],
    }


def closing_line(rows: Sequence[Row]) -> str:
    compared = sum(bool(row.errors) for row in rows)
    return (
        f"{len(_grouped(rows))} functions, {len(rows)} cases: {compared} compared, "
        f"{sum(bool(row.uncovered) for row in rows)} uncovered, "
        f"{sum(map(is_excused, rows))} without a number of the peer, "
        f"{sum(map(is_wrong, rows))} differ; worst error {_number(worst(rows)) or 'none'}"
    )


def markdown(rows: Sequence[Row], disagreements: Mapping[str, str], heading: str) -> str:
    lines = [heading, "", f"| {' | '.join(HEADER)} |", f"|{'---|' * len(HEADER)}"]
    lines += [
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in table(rows)
    ]
    for title, points in remarks(rows, disagreements).items():
        if points:
            lines += ["", f"## {title}", "", *(f"- {point}" for point in points)]
    return "\n".join([*lines, "", closing_line(rows), ""])
