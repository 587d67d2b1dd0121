"""The score of every file, and the survivors with the reason why each is no gap."""

from dataclasses import dataclass

from benchmarks.mutation.runner import Result

GOAL = 0.95


@dataclass(frozen=True)
class Score:
    mutants: int
    killed: int
    explained: int

    @property
    def share(self) -> float:
        return self.killed / self.mutants if self.mutants else 1.0

    @property
    def noticeable(self) -> float:
        """The share of those that a test can notice, as far as is known."""
        count = self.mutants - self.explained
        return self.killed / count if count else 1.0

    @property
    def unexplained(self) -> int:
        return self.mutants - self.killed - self.explained


def score(results: list[Result], explained: dict[str, str]) -> Score:
    survivors = [result for result in results if result.survived]
    known = sum(result.mutant.key in explained for result in survivors)
    return Score(len(results), len(results) - len(survivors), known)


def by_file(results: list[Result]) -> dict[str, list[Result]]:
    found: dict[str, list[Result]] = {}
    for result in sorted(results, key=lambda result: result.mutant):
        found.setdefault(result.mutant.file, []).append(result)
    return found


def table(results: list[Result], explained: dict[str, str]) -> str:
    """The last column is the score without the mutants that are equivalent."""
    lines = [
        "| file | mutants | killed | score | equivalent, explained | unexplained | of the rest |",
        "|:--|--:|--:|--:|--:|--:|--:|",
    ]
    rows = {name: score(found, explained) for name, found in by_file(results).items()}
    for name, one in {**rows, "**all**": score(results, explained)}.items():
        lines.append(
            f"| {name} | {one.mutants} | {one.killed} | {100 * one.share:.1f} % "
            f"| {one.explained} | {one.unexplained} | {100 * one.noticeable:.1f} % |"
        )
    return "\n".join(lines)


def survivors(results: list[Result], explained: dict[str, str]) -> str:
    """Those without a reason first."""
    parts: list[str] = []
    for known in (False, True):
        found = [
            result
            for result in sorted(results, key=lambda result: result.mutant)
            if result.survived and (result.mutant.key in explained) == known
        ]
        title = "Survivors, explained" if known else "Survivors without an explanation"
        parts += [f"## {title}: {len(found)}", ""]
        for result in found:
            mutant = result.mutant
            why = explained.get(mutant.key, f"passes {result.test}")
            parts.append(f"- {mutant.file}, {mutant.function}: {mutant.description}. {why}")
        parts.append("")
    return "\n".join(parts)


def others(results: list[Result]) -> str:
    """What counts as killed though no test failed."""
    counts = {
        verdict: sum(result.verdict == verdict for result in results)
        for verdict in ("timed out", "crashed")
    }
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.items())


def page(results, explained, heading: str, stale: list[str]) -> str:
    parts = [heading, "", table(results, explained), "", survivors(results, explained)]
    if stale:
        parts += ["## Stale explanations", "", *(f"- {key}" for key in stale), ""]
    return "\n".join(parts)
