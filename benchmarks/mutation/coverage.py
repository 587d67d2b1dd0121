"""Which tests run which lines of the mathematics, and how long they take.

Each test file runs in a process of its own, traced. jax traces a jitted function once and runs
what it compiled ever after, so the lines of one that several tests share would show in the first
only; where a module has such functions, what jax keeps is cleared before each of its tests.
"""

import itertools
import json
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.mutation.places import LAST, Places
from benchmarks.mutation.processes import Stream, run_streams

PYTEST = ("-q", "-s", "-p", "no:cacheprovider", "-p", "no:xdist", "--doctest-modules")


@dataclass(frozen=True)
class Coverage:
    """Of one test file."""

    loud: bool
    """Importing it starts XLA, whose threads a fork would lose."""
    failed: tuple[str, ...]
    """Tests that fail without any mutant."""
    seconds: dict[str, float]
    """Of the processor, that each test took."""
    lines: dict[str, dict[str, list[int]]]
    """Test: file of the package: lines that it ran."""


class _Tracer:
    """A pytest plugin that notes the lines of `watched` files that run during each test."""

    def __init__(self, watched: dict[str, str]):
        self.watched, self.loud, self.failed, self.seconds = watched, False, [], {}
        self.lines: dict[str, dict[str, set[int]]] = {}
        self.now: dict[str, set[int]] = {}

    def trace(self, frame, event, argument):
        return self.line if frame.f_code.co_filename in self.watched else None

    def line(self, frame, event, argument):
        self.now[self.watched[frame.f_code.co_filename]].add(frame.f_lineno)
        return self.line

    def pytest_collection_finish(self, session):
        self.loud = xla_runs()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item, nextitem):
        if _keeps_traces(item):
            sys.modules["jax"].clear_caches()
        self.now = defaultdict(set)
        start = time.process_time()
        sys.settrace(self.trace)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            self.seconds[item.nodeid] = round(time.process_time() - start, 3)
            self.lines[item.nodeid] = self.now

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.failed.append(report.nodeid)


def _keeps_traces(item: pytest.Item) -> bool:
    """Whether the module of a test holds jitted functions, traced by an earlier test perhaps."""
    module = getattr(item, "module", None)  # docstrings have none
    return bool(module) and any(hasattr(x, "clear_cache") for x in vars(module).values())


def xla_runs() -> bool:
    bridge = sys.modules.get("jax._src.xla_bridge")
    return bool(bridge and bridge._backends)


def _traced(places: Places, test_file: str) -> dict:
    tracer = _Tracer({str(places.path(file)): file for file in places.files})
    status = pytest.main(
        [*PYTEST, "--rootdir", str(places.root), str(places.root / test_file)], plugins=[tracer]
    )
    lines = {
        test: {file: sorted(numbers) for file, numbers in files.items()}
        for test, files in tracer.lines.items()
    }
    usable = status in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
    failed = tracer.failed if usable or tracer.failed else [f"{test_file} cannot be collected"]
    return {"loud": tracer.loud, "failed": failed, "seconds": tracer.seconds, "lines": lines}


def coverage(places: Places, jobs: int, say=print) -> dict[str, Coverage]:
    """Of every test file; that of a file is read from the cache while it, and what it ran, stay."""
    found: dict[str, Coverage] = {}

    def stream(test_file: str) -> Stream:
        outcome = yield lambda: _traced(places, test_file)
        if "answer" not in outcome:
            raise SystemExit(f"{test_file}: the process that ran it died ({outcome})")
        found[test_file] = _read(outcome["answer"])
        state = _state(places, test_file, found[test_file])
        kept = json.dumps({"state": state, "answer": outcome["answer"]})
        _path(places, test_file).write_text(kept)
        taken = sum(found[test_file].seconds.values())
        say(f"traced {test_file}: {len(found[test_file].seconds)} tests, {taken:.0f} s", flush=True)

    streams = []
    for test_file in places.tests:
        path = _path(places, test_file)
        kept = json.loads(path.read_text()) if path.exists() else {}
        one = _read(kept["answer"]) if kept else None
        if one and not one.failed and kept["state"] == _state(places, test_file, one):
            found[test_file] = one
        else:
            streams.append(stream(test_file))
    run_streams(streams, jobs)
    return {test_file: found[test_file] for test_file in places.tests}


def _path(places: Places, test_file: str) -> Path:
    folder = places.cache / "coverage"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{test_file.replace('/', '.')}.json"


def _state(places: Places, test_file: str, one: Coverage) -> str:
    """Of the test file and all that it ran; line numbers count."""
    ran = sorted({file for files in one.lines.values() for file in files})
    ours = [f"{places.package}/{file}" for file in ran if places.path(file).exists()]
    return " ".join([places.test_digest(test_file), *map(places.text_digest, ours)])


def _read(answer: dict) -> Coverage:
    return Coverage(**{**answer, "failed": tuple(answer["failed"])})


def covering(coverages: dict[str, Coverage], mutant, seconds: float) -> list[str]:
    """The tests that run the mutant's line, the quickest first, as many as take `seconds`."""
    first, last = mutant.lines
    found = []
    for test_file, one in coverages.items():
        late = test_file.endswith(LAST)
        for test, files in one.lines.items():
            ran = any(first <= number <= last for number in files.get(mutant.file, ()))
            if ran and test not in one.failed:
                found.append((late, one.seconds[test], test))
    found.sort()
    used = itertools.accumulate(taken for _, taken, _ in found)
    return [test for (_, _, test), total in zip(found, used, strict=True) if total <= seconds]
