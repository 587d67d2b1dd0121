"""List of the benchmarks: the command of each, its time on two cores, and what it prints.

    python -m benchmarks

What a benchmark says of itself stands in the docstring of its program: what it prints in the first
paragraph, its time in a line "Takes ... on two cores.".
"""

import ast
import re
import textwrap
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent
TIME = re.compile(r"^Takes (.+?) on two cores(.*)\.$", re.MULTILINE)


class Benchmark(NamedTuple):
    """A program of this folder.

    name: of its module, after `python -m`.
    time: that it takes on two cores, in words.
    prints: what it is about.
    """

    name: str
    time: str
    prints: str


def programs() -> list[Path]:
    """Files of this folder that `python -m` runs, but for this one."""
    files = [*FOLDER.glob("*.py"), *FOLDER.glob("*/__main__.py")]
    return sorted(path for path in files if path.parent != FOLDER or path.stem != "__main__")


def described(path: Path) -> Benchmark:
    """A benchmark as the docstring of its program tells of it.

    Raises:
      ValueError: it does not say how long it takes.
    """
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    parts = path.relative_to(FOLDER).with_suffix("").parts
    name = ".".join(("benchmarks", parts[0]))
    if not (time := TIME.search(text)):
        raise ValueError(f'{name}: the docstring has no line "Takes ... on two cores."')
    return Benchmark(name, time[1] + time[2], " ".join(text.partition("\n\n")[0].split()))


def main() -> None:
    found = [described(path) for path in programs()]
    for benchmark in found:
        print(f"python -m {benchmark.name}: {benchmark.time}")
        print(textwrap.indent(textwrap.fill(benchmark.prints, 76), "    "))
    print("\nThe options and details of each: --help behind its command.")


if __name__ == "__main__":
    main()
