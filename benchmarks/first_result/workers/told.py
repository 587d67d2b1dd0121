"""What a worker is told, and how it marks a milestone."""

import argparse
from pathlib import Path

from benchmarks.first_result.jobs import JOBS, Job
from benchmarks.first_result.timeline import MARK


def parse() -> tuple[Job, argparse.Namespace]:
    """The job, and `model`, `rows`, `output` and `learning_rate`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("job", choices=JOBS)
    for name in ("model", "rows", "output"):
        parser.add_argument(name, type=Path)
    parser.add_argument("learning_rate", type=float)
    args = parser.parse_args()
    return JOBS[args.job], args


def mark(milestone: str) -> None:
    """Tell the watcher that a milestone has just been passed."""
    print(f"\n{MARK}{milestone}", flush=True)
