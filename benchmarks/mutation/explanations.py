"""Why a mutant that no test notices is no gap: a table of TOML, one sentence each.

An entry names file, function, line and mutation, not a line number, so that it lives while the
line does. One that fits no mutant, or a mutant that a test kills, is stale and reported.
"""

import tomllib
from pathlib import Path

from benchmarks.mutation.mutants import Mutant
from benchmarks.mutation.runner import Result

FILE = Path(__file__).with_name("explanations.toml")
FIELDS = ("file", "function", "line", "mutation", "why")


def read(path: Path = FILE) -> dict[str, str]:
    """Key of a mutant: why it survives."""
    found = {}
    for entry in tomllib.loads(path.read_text()).get("survivor", []):
        if set(entry) != set(FIELDS):
            raise SystemExit(f"{path}: an entry has fields {sorted(entry)}, wanted {FIELDS}")
        key = " | ".join(entry[name] for name in FIELDS[:-1])
        if key in found:
            raise SystemExit(f"{path}: explained twice: {key}")
        found[key] = entry["why"]
    return found


def stale(explained: dict[str, str], mutants: list[Mutant], results: list[Result]) -> list[str]:
    """Explanations of mutants that do not exist, or do not survive."""
    existing = {mutant.key for mutant in mutants}
    killed = {result.mutant.key for result in results if not result.survived}
    return [key for key in explained if key not in existing or key in killed]


def entry(mutant: Mutant, why: str = "") -> str:
    """An entry of the file, to be completed by hand."""
    values = (mutant.file, mutant.function, mutant.line, mutant.description, why)
    fields = (f"{name} = {_quoted(value)}" for name, value in zip(FIELDS, values, strict=True))
    return "\n".join(["[[survivor]]", *fields])


def _quoted(value: str) -> str:
    """A literal string where it can be, so that code reads as it stands in the file."""
    if "'" not in value:
        return f"'{value}'"
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
