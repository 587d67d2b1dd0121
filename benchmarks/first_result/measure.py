"""One process of the race: run, watched, and kept as a line of JSON."""

import dataclasses
import datetime
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

from benchmarks.first_result.jobs import JOBS
from benchmarks.first_result.sides import Place, Side
from benchmarks.first_result.timeline import Timeline, watched
from benchmarks.speed.race import ENVIRONMENT, ROOT

OWN = ("JAX_COMPILATION_CACHE", "JAX_PERSISTENT_CACHE", "JAX_ENABLE_COMPILATION_CACHE")
PHASE = re.compile(r"(?P<name>\S.*): (?:(?P<s>\d+\.\d) s|(?P<h>\d+):(?P<m>\d\d):(?P<sec>\d\d))")
PROGRAMS = "*-cache"  # a compiled program in jax's cache


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
    """What was measured of one process.

    job, side, cache: of `JOBS`, `SIDES` and `PASSES`.
    number: of the round.
    seen: its milestones, memory and processor time.
    programs: compiled anew, beside those in the cache; None: the side keeps none.
    phases: seconds of what the process itself told of.
    versions, revision, date, command: what was measured, and when.
    """

    job: str
    side: str
    cache: str
    number: int
    seen: Timeline
    programs: int | None
    phases: dict[str, float]
    versions: str
    revision: str
    date: str
    command: str

    def line(self) -> str:
        """As a line of JSON."""
        return json.dumps(dataclasses.asdict(self)) + "\n"


def read_measurements(file: Path) -> list[Measurement]:
    """All measurements of a file of lines; none where there is no such file."""
    lines = file.read_text().splitlines() if file.exists() else []
    return [
        Measurement(**fields | {"seen": Timeline(**fields["seen"])})
        for fields in map(json.loads, lines)
    ]


def environment(side: Side, cache: Path) -> dict[str, str]:
    """Of a process: this one's, without settings of jax's cache, and all caches in a folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OWN)}
    return kept | ENVIRONMENT | {side.cache_variable: str(cache), "HF_HOME": str(cache / "hub")}


def measured(
    side: Side,
    python: str,
    place: Place,
    *,
    job: str,
    cache: str,
    learning_rate: float,
    number: int,
    timeout: float,
    versions: str,
    command: str,
) -> Measurement:
    """A process of a side doing a job; what it wrote is removed again, but for its log.

    Args:
      place: as in `Place`; its cache is emptied first for the cold pass.
      job, cache, number, versions, command: as in `Measurement`.
      learning_rate: of the job.
      timeout: seconds.
    """
    if cache == "cold":
        shutil.rmtree(place.cache, ignore_errors=True)
    shutil.rmtree(place.output, ignore_errors=True)
    place.cache.mkdir(parents=True, exist_ok=True)
    log = place.output.with_name(f"{job}-{side.name}-{cache.replace(' ', '-')}-{number}.log")
    before = programs_in(place.cache)
    seen, start = watched(
        [python, *side.command(JOBS[job], job, place, learning_rate)],
        env=environment(side, place.cache),
        log=log,
        timeout=timeout,
    )
    side.look(seen, place, start)
    shutil.rmtree(place.output, ignore_errors=True)
    return Measurement(
        job=job,
        side=side.name,
        cache=cache,
        number=number,
        seen=seen,
        programs=programs_in(place.cache) - before if "warm" in side.passes else None,
        phases=phases_in(log.read_text(errors="replace")),
        versions=versions,
        revision=revision(),
        date=datetime.date.today().isoformat(),
        command=command,
    )


def programs_in(cache: Path) -> int:
    """Number of compiled programs below a folder."""
    return sum(1 for _ in cache.rglob(PROGRAMS))


def phases_in(log: str) -> dict[str, float]:
    """Seconds of the phases that a log tells the end of, as `saving the model: 2.5 s`."""
    phases: dict[str, float] = {}
    for found in filter(None, map(PHASE.fullmatch, log.splitlines())):
        name = re.sub(r"\S*/(\S+)", r"\1", found["name"])
        whole = [int(found[part] or 0) for part in ("h", "m", "sec")]
        seconds = 3600 * whole[0] + 60 * whole[1] + whole[2] + float(found["s"] or 0)
        phases[name] = phases.get(name, 0.0) + seconds
    return phases


def revision() -> str:
    """Of the repository, with a + where files are changed; "unknown" where there is none."""

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=ROOT, capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    number = git("rev-parse", "--short", "HEAD")
    return (number + "+" * bool(git("status", "--porcelain"))) or "unknown"
