"""Turns of many functions, so that a machine that slows down slows all of them."""

import gc
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax

Runs = Sequence[Callable[[], Any]]


def timings(runs: Runs, rounds: int, *, turn: float, what: str) -> list[list[float]]:
    """Seconds of a call, a list of rounds for each function.

    Args:
      runs: functions of no arguments; the first call compiles and is not counted.
      rounds: how often each has its turn.
      turn: about as many seconds of calls in a turn; at least one call.
      what: they are, for the progress lines.
    """
    print(f"{what}: compiling {len(runs)}", flush=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda run: jax.block_until_ready(run()), runs))
    calls = [max(1, int(turn / seconds_of(run, 1))) if turn else 1 for run in runs]
    gc.collect()
    taken: list[list[float]] = [[] for _ in runs]
    for number in range(rounds):
        print(f"{what}: round {number + 1} of {rounds}", flush=True)
        for run, times, count in zip(runs, taken, calls, strict=True):
            times.append(seconds_of(run, count))
    return taken


def seconds_of(run: Callable[[], Any], calls: int) -> float:
    """Mean seconds of a call, each waited for."""
    start = time.perf_counter()
    for _ in range(calls):
        jax.block_until_ready(run())
    return (time.perf_counter() - start) / calls
