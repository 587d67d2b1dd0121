"""Interleaved rounds: every worker does its work in turn, in an order that is drawn anew.

A turn is two units, of which the second counts: training does not pause between steps, and a
process that waited for the others finds its caches cold, and pages taken away by the system.
"""

import contextlib
import dataclasses
import json
import os
import random
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CPUS = 2
# The same for all: two threads.
ENVIRONMENT = {
    "OMP_NUM_THREADS": str(CPUS),
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "JAX_PLATFORMS": "cpu",
    "PYTHONPATH": str(ROOT),
}
# Freed memory stays with the process, in huge pages.
SAME_MALLOC = {
    "MALLOC_TOP_PAD_": "1000000000",
    "MALLOC_MMAP_THRESHOLD_": "4000000000",
    "MALLOC_TRIM_THRESHOLD_": "40000000000",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
# What our program sets where each side has its own.
OUR_MALLOC = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


@dataclasses.dataclass(frozen=True)
class Entry:
    """One side of a race.

    name: for the table.
    module: of `benchmarks.speed.workers`.
    arguments: what it is told beside work and size.
    """

    name: str
    module: str
    arguments: tuple[str, ...] = ()

    @property
    def is_ours(self) -> bool:
        return self.module == "ours"


class Worker:
    """A process that does units of work on demand."""

    def __init__(self, entry: Entry, python: str, work: str, size: str, malloc: str = "same"):
        self.entry, self.seconds, self.cpu_seconds, self.peak_mib = entry, [], [], 0.0
        self.versions: dict[str, str] = {}
        settings = SAME_MALLOC if malloc == "same" else OUR_MALLOC if entry.is_ours else {}
        module = f"benchmarks.speed.workers.{entry.module}"
        self.process = subprocess.Popen(
            [python, "-m", module, work, size, *entry.arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | ENVIRONMENT | settings,
        )

    def joined(self, other: "Worker") -> "Worker":
        """This one, with the turns of another process of the same side."""
        self.seconds += other.seconds
        self.cpu_seconds += other.cpu_seconds
        self.peak_mib = max(self.peak_mib, other.peak_mib)
        return self

    def answer(self) -> dict:
        """The next line that the worker says; why it stopped, if it did."""
        assert self.process.stdout and self.process.stderr
        for line in self.process.stdout:
            if line.startswith("@"):
                return json.loads(line[1:])
        lines = [x for x in self.process.stderr.read().splitlines() if x.strip()]
        return {"failed": lines[-1] if lines else "no word"}

    def turn(self) -> None:
        """One unit to get warm, one that counts."""
        self._unit()
        said = self._unit()
        self.seconds.append(said["seconds"])
        self.cpu_seconds.append(said["cpu_seconds"])
        self.peak_mib = said["peak_mib"]

    def _unit(self) -> dict:
        assert self.process.stdin
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        said = self.answer()
        if "failed" in said:
            raise RuntimeError(f"{self.entry.name}: {said['failed']}")
        return said

    def stop(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.process.communicate("stop\n", timeout=60)


def stay_on_two_processors() -> None:
    """This process and its children: XLA takes as many threads as there are processors for it."""
    if sys.platform == "linux":
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CPUS])


def race(
    entries: dict[Entry, str],
    work: str,
    size: str,
    rounds: int,
    *,
    seed: int = 0,
    malloc: str = "same",
):
    """`(workers that took part, {name: why not})`.

    Args:
      entries: each side with the Python that runs it.
      rounds: turns of every side.
      seed: of the order of turns.
      malloc: "same" settings for all sides, or each its "own".
    """
    workers, absent = [], {}
    for entry, python in entries.items():
        worker = Worker(entry, python, work, size, malloc)
        said = worker.answer()  # one after another: compilations do not disturb each other
        if "failed" in said:
            absent[entry.name] = said["failed"]
            worker.stop()
        else:
            worker.versions = said["versions"]
            workers.append(worker)
    order = random.Random(seed)
    try:
        for _ in range(rounds):
            order.shuffle(workers)
            for worker in workers:
                worker.turn()
                print(f"  {worker.entry.name}: {worker.seconds[-1]:.3f} s", file=sys.stderr)
    finally:
        for worker in workers:
            worker.stop()
    return sorted(workers, key=lambda worker: list(entries).index(worker.entry)), absent
