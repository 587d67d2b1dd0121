"""The worker's side of a race: one unit of work whenever the starter says so.

A worker prints a line when it is ready, and one with its seconds after every unit. It does nothing
in between, so that workers of different libraries take turns on the same machine.
"""

import importlib.metadata
import json
import resource
import sys
import time

# module: its distribution
LIBRARIES = {
    "trl": "trl",
    "tunix": "google-tunix",
    "transformers": "transformers",
    "torch": "torch",
    "flax": "flax",
    "jax": "jax",
}


class Pace:
    """Called at the border between two units by whatever loop does the work."""

    def __init__(self, warm_up: int):
        """warm_up: units before the worker is ready (compilation, first touches of memory)."""
        self.left, self.started = warm_up, None

    def __call__(self) -> None:
        if self.left > 0:
            self.left -= 1
            return
        if self.started is None:
            say(versions=versions())
        else:
            wall, cpu = (now - then for now, then in zip(clocks(), self.started, strict=True))
            say(seconds=wall, cpu_seconds=cpu, peak_mib=peak_mib())
        if sys.stdin.readline().strip() != "go":
            raise SystemExit(0)
        self.started = clocks()


def versions() -> dict[str, str]:
    """Of the libraries that count, as far as they are imported here."""
    imported = {module: name for module, name in LIBRARIES.items() if module in sys.modules}
    return {module: importlib.metadata.version(name) for module, name in imported.items()}


def clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def peak_mib() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def say(**what) -> None:
    print("@" + json.dumps(what), file=sys.__stdout__, flush=True)
