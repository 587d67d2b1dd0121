"""Time from the command to the saved model, beside TRL and Tunix on the same rows.

Every process is watched from outside. The table is written again after each of them, and each is
kept as a line of JSON; what is not installed, or fails, is left out with a line.

Takes an hour on two cores, and 25 minutes without TRL and Tunix.
"""

import argparse
import dataclasses
import signal
import subprocess
import sys
from pathlib import Path

from benchmarks.first_result.jobs import JOBS, LEARNING_RATE, OTHER_RATE
from benchmarks.first_result.measure import environment, measured, read_measurements
from benchmarks.first_result.rows import pairs, rated_sentences, tokens_by, write_rows
from benchmarks.first_result.sides import SIDES, Place, Side, versions
from benchmarks.first_result.table import table
from benchmarks.speed.race import stay_on_two_processors

WARM = 0.6  # expected time of a warm pass, as a share of the cold one's


@dataclasses.dataclass(frozen=True)
class Turn:
    """One process of the plan."""

    number: int
    job: str
    side: Side
    cache: str

    @property
    def expected(self) -> float:
        """Seconds on two quiet cores, roughly."""
        return JOBS[self.job].expected[self.side.name] * (1 if self.cache == "cold" else WARM)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.first_result", description=__doc__)
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    names = [side.name for side in SIDES]
    parser.add_argument("--sides", nargs="+", choices=names, default=names)
    parser.add_argument("--rounds", type=int, default=1, help="of all jobs and sides")
    parser.add_argument("--timeout", type=float, default=1200, help="seconds of a process")
    parser.add_argument("--peer-python", default=sys.executable, help="of TRL")
    parser.add_argument("--tunix-python", help="of Tunix (default: that of TRL)")
    parser.add_argument("--seed", type=int, default=0, help="of the rows")
    parser.add_argument("--model", type=Path, help="Hugging Face folder (default: smollm2)")
    folder = Path("runs/first_result")
    parser.add_argument("--folder", type=Path, default=folder, help="for rows, logs, caches")
    parser.add_argument("--json", type=Path, help="lines of measurements, to which these are added")
    parser.add_argument("--markdown", type=Path, help="write the table to this file")
    return parser.parse_args()


def main() -> int:
    args = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # and end the worker
    stay_on_two_processors()
    args.folder = args.folder.resolve()
    args.folder.mkdir(parents=True, exist_ok=True)
    args.json = args.json or args.folder / "measurements.jsonl"
    pythons = {"jaxalign": sys.executable, "TRL": args.peer_python}
    pythons["Tunix"] = args.tunix_python or args.peer_python
    made = present(args, pythons)
    turns = plan(args, [side for side in SIDES if side.name in made])
    say(f"{len(turns)} processes, about {sum(turn.expected for turn in turns) / 60:.0f} minutes")
    model = args.model.resolve() if args.model else exported(args.folder / "model")
    rows = args.folder / "rows"
    write_all_rows(args, model, rows)
    for turn in turns:
        side = turn.side
        say(f"{turn.job}, {side.name}, {turn.cache}: about {turn.expected:.0f} s")
        one = measured(
            side,
            pythons[side.name],
            Place(
                model=model,
                rows=rows / turn.job,
                output=args.folder / "output",
                cache=args.folder / f"cache-{side.name}",
            ),
            job=turn.job,
            cache=turn.cache,
            learning_rate=OTHER_RATE if turn.cache == "other rate" else LEARNING_RATE,
            number=turn.number,
            timeout=args.timeout,
            versions=made[side.name],
            command=" ".join(["python -m benchmarks.first_result", *sys.argv[1:]]),
        )
        marks = ", ".join(f"{mark} {seconds:.1f}" for mark, seconds in one.seen.marks.items())
        say(f"  {one.seen.failure or 'done'}: {marks}")
        with args.json.open("a") as file:
            file.write(one.line())
        if args.markdown:
            args.markdown.write_text(table(read_measurements(args.json)))
    print(table(read_measurements(args.json)))
    return 0


def plan(args: argparse.Namespace, sides: list[Side]) -> list[Turn]:
    """All processes in order: round by round, and each round begins with another side."""
    turns = []
    for number in range(args.rounds):
        first = number % max(len(sides), 1)
        turns += [
            Turn(number + 1, job, side, cache)
            for job in args.jobs
            for side in sides[first:] + sides[:first]
            if JOBS[job].method in side.methods
            for cache in (side.passes if JOBS[job].rows else ("cold",))
        ]
    return turns


def present(args: argparse.Namespace, pythons: dict[str, str]) -> dict[str, str]:
    """The wanted sides that are installed, by name, with what they are made of."""
    made = {}
    for side in SIDES:
        if side.name in args.sides:
            try:
                env = environment(side, args.folder / "cache")
                made[side.name] = versions(side, pythons[side.name], env)
            except (LookupError, OSError) as error:
                say(f"{side.name} does not take part: {error}")
    return made


def exported(folder: Path) -> Path:
    """SmolLM2 as a Hugging Face folder, which all sides read."""
    if not folder.exists():
        words = ["export", "--model", "smollm2", "--output", str(folder)]
        subprocess.run([sys.executable, "-m", "jaxalign", *words], check=True)
    return folder


def write_all_rows(args: argparse.Namespace, model: Path, folder: Path) -> None:
    """The rows of the jobs, a folder each."""
    jobs = {name: JOBS[name] for name in args.jobs if JOBS[name].rows}
    if jobs:
        number = max(job.rows + job.held_out for job in jobs.values())
        count, sentences = tokens_by(model), rated_sentences()
        preferences = list(pairs(count, *sentences, number=number, seed=args.seed))
        for name, job in jobs.items():
            write_rows(job, preferences, folder / name)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
