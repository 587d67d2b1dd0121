"""Results that outlive a run: a line of JSON each, found again while they still hold.

A killed mutant stays killed while its function stays as it is and the test that noticed exists. One
that survived is tried again as soon as a test that covers it is new or changed. Changes of other
functions of the package are not looked at: `--fresh` forgets everything.
"""

import hashlib
import json
from functools import cache
from pathlib import Path

from benchmarks.mutation.coverage import Coverage, covering
from benchmarks.mutation.mutants import Mutant
from benchmarks.mutation.places import Places
from benchmarks.mutation.runner import Result


class Store:
    def __init__(self, places: Places, coverages: dict[str, Coverage], seconds: float):
        self.places, self.coverages, self.seconds = places, coverages, seconds
        self.test_digest = cache(places.test_digest)
        self.path: Path = places.cache / "results.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.tests = {test for one in coverages.values() for test in one.lines}
        self.kept: dict[str, dict] = {}
        for line in self.path.read_text().splitlines() if self.path.exists() else ():
            kept = json.loads(line)
            self.kept[kept["mutant"]] = kept

    def find(self, mutant: Mutant) -> Result | None:
        """The result of an earlier run, if nothing has happened since."""
        kept = self.kept.get(mutant.key)
        if kept is None or kept["source"] != _digest([mutant.source]):
            return None
        if kept["verdict"] == "survived" and kept["tests"] != self._tests(mutant):
            return None
        if kept["verdict"] == "killed" and kept["test"] not in self.tests:
            return None
        return Result(mutant, kept["verdict"], kept["test"])

    def killers(self) -> dict[str, str]:
        """What noticed each mutant last, whether it still holds or not."""
        return {key: kept["test"] for key, kept in self.kept.items() if kept["verdict"] == "killed"}

    def keep(self, result: Result):
        line = {
            "mutant": result.mutant.key,
            "source": _digest([result.mutant.source]),
            "tests": self._tests(result.mutant),
            "verdict": result.verdict,
            "test": result.test,
        }
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def _tests(self, mutant: Mutant) -> str:
        tests = covering(self.coverages, mutant, self.seconds)
        files = {test.split("::")[0] for test in tests}
        return _digest(sorted([*tests, *map(self.test_digest, files)]))


def _digest(texts: list[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]
