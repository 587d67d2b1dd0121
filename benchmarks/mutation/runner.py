"""Puts mutants in place, one in each forked process, and runs the tests that may notice.

The tests are collected once. A child changes the code of one function in memory, so that every
module that imported the function by its name has the mutant, and runs its tests until one fails.
XLA starts in the children alone: its threads do not live through a fork. Test files that start it
when they are imported are collected in the child, after all others have passed.
"""

import gc
import signal
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FunctionType

import pytest

from benchmarks.mutation.coverage import PYTEST, Coverage, covering, xla_runs
from benchmarks.mutation.mutants import Mutant
from benchmarks.mutation.places import Places
from benchmarks.mutation.processes import Stream, run_streams

SECONDS = 120  # that one test may take before the mutant counts as killed


@dataclass(frozen=True)
class Result:
    mutant: Mutant
    verdict: str
    """killed, timed out, crashed or survived."""
    test: str
    """That noticed; of a survivor, how many did not."""

    @property
    def survived(self) -> bool:
        return self.verdict == "survived"


Functions = dict[tuple[str, str], list[FunctionType]]


def functions_of(places: Places) -> Functions:
    """Every loaded function of the mutated files, by file and name.

    A list for each: pytest may import a module that is imported already once more, and then some
    tests hold the function of the one, some that of the other.
    """
    files = {str(places.path(file)): file for file in places.files}
    found: Functions = defaultdict(list)
    for x in gc.get_objects():
        if isinstance(x, FunctionType) and x.__code__.co_filename in files:
            found[files[x.__code__.co_filename], x.__qualname__].append(x)
    return found


def install(mutant: Mutant, functions: Functions):
    """Gives the function the code and the defaults of the mutant, in place."""
    for original in functions[mutant.file, mutant.function]:
        scope = dict(original.__globals__)
        exec(compile(mutant.source, mutant.file, "exec"), scope)
        changed = scope[mutant.function.split(".")[-1]]
        original.__code__ = changed.__code__
        original.__defaults__, original.__kwdefaults__ = (
            changed.__defaults__,
            changed.__kwdefaults__,
        )


@dataclass
class Runner:
    """A pytest plugin whose test loop is the loop over mutants."""

    places: Places
    coverages: dict[str, Coverage]
    groups: list[list[Mutant]]
    jobs: int
    report: Callable[[Result], None]
    seconds: float
    killers: dict[str, str]
    """Tests that noticed mutants in earlier runs, by key of the mutant."""
    items: dict[str, pytest.Item] = field(default_factory=dict)
    functions: Functions = field(default_factory=dict)
    tried: int = 0

    def pytest_runtestloop(self, session):
        if xla_runs():
            raise SystemExit("XLA started while tests were collected: trace them again (--fresh)")
        self.items = {item.nodeid: item for item in session.items}
        self.functions = functions_of(self.places)
        run_streams((self._stream(session, group) for group in self.groups), self.jobs)
        return True

    def _stream(self, session, group: list[Mutant]) -> Stream:
        """The mutants of one function; tests that killed it before, or the ones before, first."""
        killers: list[str] = []
        for mutant in group:
            promising = [self.killers.get(mutant.key, ""), *killers]
            tests = _first(promising, covering(self.coverages, mutant, self.seconds))
            outcome = yield lambda mutant=mutant, tests=tests: self._first_failure(
                session, mutant, tests
            )
            result = _result(mutant, outcome, len(tests))
            if result.test in killers:
                killers.remove(result.test)
            if result.verdict == "killed":
                killers.insert(0, result.test)
            self.tried += 1
            self.report(result)

    def _first_failure(self, session, mutant: Mutant, tests: list[str]) -> str:
        """The test that fails first; empty when none does."""
        install(mutant, self.functions)
        quiet = [self.items[test] for test in tests if test in self.items]
        loud = [test for test in tests if test not in self.items]
        if (failed := _run(session, quiet)) or not loud:
            return failed
        files = list(dict.fromkeys(test.split("::")[0] for test in loud))
        collected = {item.nodeid: item for item in session.perform_collect(files)}
        return _run(session, [collected[test] for test in loud])


def _first(promising: list[str], tests: list[str]) -> list[str]:
    def place(test: str) -> int:
        return promising.index(test) if test in promising else len(promising)

    return sorted(tests, key=place)


def _run(session, items: list[pytest.Item]) -> str:
    failures = _Failures()
    session.config.pluginmanager.register(failures)
    for place, item in enumerate(items):
        signal.alarm(SECONDS)
        following = items[place + 1] if place + 1 < len(items) else None
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if failures.tests:
            return failures.tests[0]
    signal.alarm(0)
    session.config.pluginmanager.unregister(failures)
    return ""


class _Failures:
    def __init__(self):
        self.tests: list[str] = []

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.tests.append(report.nodeid)


def _result(mutant: Mutant, outcome: dict, tests: int) -> Result:
    if "answer" in outcome and not outcome["answer"]:
        return Result(mutant, "survived", f"{tests} tests")
    if "answer" in outcome:
        return Result(mutant, "killed", outcome["answer"])
    if outcome["signal"] == signal.SIGALRM:
        return Result(mutant, "timed out", f"{SECONDS} s")
    if outcome["signal"] == 0:
        raise SystemExit(f"{mutant.key}: the process that tried it failed")
    return Result(mutant, "crashed", signal.Signals(outcome["signal"]).name)


def by_function(mutants: list[Mutant]) -> list[list[Mutant]]:
    groups: dict[tuple[str, str], list[Mutant]] = {}
    for mutant in mutants:
        groups.setdefault((mutant.file, mutant.function), []).append(mutant)
    return list(groups.values())


def run(places: Places, coverages, mutants: list[Mutant], *, jobs, seconds, report, killers):
    """Calls `report` with the result of every mutant; `seconds` of tests each at most."""
    runner = Runner(places, coverages, by_function(mutants), jobs, report, seconds, killers)
    tests = {test for mutant in mutants for test in covering(coverages, mutant, seconds)}
    files = sorted({test.split("::")[0] for test in tests})
    quiet = [str(places.root / file) for file in files if not coverages[file].loud]
    pytest.main([*PYTEST, "--rootdir", str(places.root), *quiet], plugins=[runner])
    if runner.tried < len(mutants):  # pytest has printed why, and swallowed it
        raise SystemExit(f"{runner.tried} of {len(mutants)} mutants tried, see the error above")
