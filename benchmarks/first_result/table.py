"""The table of the race: milestones, ratios to the peers, and where our own time goes."""

import os
import platform
import statistics
import sys
from collections.abc import Iterable, Sequence

from benchmarks.first_result.jobs import GROUP, JOBS, LONGEST, NEW_TOKENS, RANK, SHORTEST
from benchmarks.first_result.measure import Measurement
from benchmarks.first_result.sides import OURS, PASSES, SIDES
from benchmarks.first_result.timeline import MARKS
from benchmarks.speed.__main__ import processor
from benchmarks.speed.race import CPUS

HEAD = (
    f"| job | who | cache | {' | '.join(MARKS)} | peak memory, MiB | CPU, s | compiled anew |",
    "|:--|:--|:--|" + "--:|" * (len(MARKS) + 3),
)
TO = ("model", "end")  # milestones that ratios are of


def table(measurements: Sequence[Measurement]) -> str:
    """Markdown of all that was measured, of however many jobs, sides and rounds."""
    lines = [f"# From the command to the result\n\n{introduction()}\n", *HEAD]
    groups = grouped(measurements)
    lines += [line_of(key, group) for key, group in groups.items() if whole(group)]
    lines += ["", *ratios(groups), *phase_lines(groups)]
    if failures := [failure_of(one) for one in measurements if one.seen.failure]:
        lines += ["Without a result:", "", *failures, ""]
    lines += ["Measured:", "", *unique(source_of(one) for one in measurements), ""]
    lines += ["Versions:", "", *unique(f"- {one.side}: {one.versions}" for one in measurements)]
    return "\n".join(lines) + "\n"


def introduction() -> str:
    """Machine, jobs, and what the columns mean."""
    kinds = "; ".join(f"{name}: {meaning}" for name, meaning in PASSES.items())
    jobs = "; ".join(
        f"{name}: {job.rows} rows, {job.held_out} held out, {job.steps} steps of {job.batch}"
        for name, job in JOBS.items()
        if job.rows
    )
    return (
        f"{processor()}, {CPUS} of {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"{sys.platform}. Seconds from the start of the process to its first line, the end of its "
        "first training step, the model on disk, the numbers of the evaluation on the held-out "
        "rows, its end: medians, with least and most where there are several rounds. "
        f"SmolLM2-135M-Instruct in float32, LoRA of rank {RANK} on all dense layers, rows of "
        f"{SHORTEST} to {LONGEST} tokens, the same for all; every library as its documentation "
        "has it, without gradient checkpointing. TRL and jaxalign train before they evaluate; "
        f"TRL and Tunix save the adapters, jaxalign the merged model too.\n\nCache: {kinds}.\n\n"
        f"Jobs: {jobs} (grpo: groups of {GROUP}, {NEW_TOKENS} new tokens, a Python reward); "
        "default: `jaxalign rlhf` as it is."
    )


Key = tuple[str, str, str]  # job, side, cache


def grouped(measurements: Iterable[Measurement]) -> dict[Key, list[Measurement]]:
    """The rounds of each job, side and pass, in the order of their declarations."""
    order = {(job, side.name, name): [] for job in JOBS for side in SIDES for name in PASSES}
    for one in measurements:
        order[one.job, one.side, one.cache].append(one)
    return {key: group for key, group in order.items() if group}


def whole(group: Iterable[Measurement]) -> list[Measurement]:
    """Those with a result."""
    return [one for one in group if not one.seen.failure]


def times(group: Iterable[Measurement], mark: str) -> list[float]:
    """Seconds to a milestone, of the rounds that reached it and have a result."""
    return [one.seen.marks[mark] for one in whole(group) if mark in one.seen.marks]


def line_of(key: Key, group: list[Measurement]) -> str:
    """A row of the table."""
    rounds = whole(group)
    cells = [*key, *(spread(times(rounds, mark)) for mark in MARKS)]
    cells.append(f"{max(one.seen.peak_mib for one in rounds):,.0f}")
    cells.append(spread([one.seen.cpu_seconds for one in rounds]))
    cells.append(
        ", ".join(unique("" if one.programs is None else f"{one.programs}" for one in rounds))
    )
    return f"| {' | '.join(cells)} |"


def spread(values: Sequence[float]) -> str:
    """The median, with least and most where there are several; a dash where there is none."""
    if not values:
        return "–"
    middle = f"{statistics.median(values):.1f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.1f}, {max(values):.1f})"


def ratios(groups: dict[Key, list[Measurement]]) -> list[str]:
    """Our median by a peer's cold one, for every pass of ours; none where no peer has a result."""
    peers = [side.name for side in SIDES if side is not OURS]
    titles = [f"{mark}, by {peer}'s" for peer in peers for mark in TO]
    rows = []
    for (job, side, name), group in groups.items():
        cells = [ratio(group, groups.get((job, peer, "cold"), []), mark)
                 for peer in peers for mark in TO]  # fmt: skip
        if side == OURS.name and any(cells):
            rows.append(f"| {' | '.join((job, name, *cells))} |")
    if not rows:
        return []
    head = f"| job | our cache | {' | '.join(titles)} |", "|:--|:--|" + "--:|" * len(titles)
    return ["Our time as a share of a peer's with an empty cache:", "", *head, *rows, ""]


def ratio(ours: list[Measurement], theirs: list[Measurement], mark: str) -> str:
    """Median by median; empty where either is missing."""
    pair = times(ours, mark), times(theirs, mark)
    return f"{statistics.median(pair[0]) / statistics.median(pair[1]):.2f}" if all(pair) else ""


def phase_lines(groups: dict[Key, list[Measurement]]) -> list[str]:
    """Where our time goes, as the run itself tells it, of the first round with a result."""
    lines = []
    for (job, _, name), group in groups.items():
        if rounds := [one for one in whole(group) if one.phases]:
            parts = ", ".join(f"{phase} {spent:.1f}" for phase, spent in rounds[0].phases.items())
            lines.append(f"- {job}, {name}: {parts}")
    return ["Seconds of the phases that our runs tell of:", "", *lines, ""] if lines else []


def failure_of(one: Measurement) -> str:
    """A line on a process without a result, with the milestones that it reached."""
    reached = ", ".join(f"{mark} {seconds:.1f} s" for mark, seconds in one.seen.marks.items())
    return (
        f"- {one.job}, {one.side}, {one.cache}, round {one.number}: {one.seen.failure} ({reached})"
    )


def source_of(one: Measurement) -> str:
    """When and how a measurement was made."""
    return f"- {one.date}, revision {one.revision}: `{one.command}`"


def unique(lines: Iterable[str]) -> list[str]:
    """The different ones, in order."""
    return list(dict.fromkeys(lines))
