"""Golden vectors of other libraries against our numbers, in double precision.

    python -m benchmarks.conformance --vectors DIR [--file NAME] [--markdown FILE]
    python -m benchmarks.conformance --peer all [--markdown FILE] [--json FILE] [--merge FILE ...]

A row for each function of each peer: cases, how many were compared, the worst error of values and
of gradients, |ours - theirs| / max(1, |theirs|), and a verdict. Exit status 1 if something differs
that no known disagreement explains, an adapter raises, or a manifest or array is missing; 2 if
there are no manifests.

With `--peer`, installed libraries (and ours) on theorems and invariances; exit status 1 only if
ours fails a row.

Takes five minutes on two cores for the golden vectors, and longer for installed peers.
"""

import argparse
import sys
from importlib.metadata import version
from pathlib import Path

import jax
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.conformance.catalogue import collected
from benchmarks.conformance.comparison import Row, is_wrong, run_file
from benchmarks.conformance.peers import command as peers
from benchmarks.conformance.tables import HEADER, closing_line, markdown, remarks, table


def manifests(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.json"))


def broken(folder: Path, file: str, error: Exception) -> str:
    return f"{folder / file}: {type(error).__name__}: {error}".replace("\n", " ")


def show(rows: list[Row], disagreements: dict[str, str]):
    console = Console(width=max(160, Console().width))
    grid = Table()
    for name in HEADER:
        grid.add_column(name, overflow="fold", no_wrap=name in HEADER[2:6])
    for row in table(rows):
        grid.add_row(*map(escape, row))
    console.print(grid)
    for title, points in remarks(rows, disagreements).items():
        if points:
            print(f"\n{title}:")
            print("\n".join(f"  {point}" for point in points))
    print()
    print(closing_line(rows))


def run(folder: Path, file: str | None = None, markdown_file: Path | None = None) -> int:
    """Compares, prints and returns the exit status."""
    files = [file] if file else manifests(folder)
    if not files:
        print(f"{folder}: no manifests (*.json)", file=sys.stderr)
        return 2
    adapters, disagreements = collected()
    rows, errors = [], []
    with jax.enable_x64(True):
        for name in files:
            try:
                rows += run_file(folder, name, adapters, disagreements)
            except Exception as error:  # whatever is wrong with a file is said in a line
                errors.append(broken(folder, name, error))
    show(rows, disagreements)
    for line in errors:
        print(line, file=sys.stderr)
    if markdown_file:
        libraries = ", ".join(f"{name} {version(name)}" for name in ("jax", "jaxlib", "numpy"))
        only = f" --file {file}" if file else ""
        heading = (
            "# Golden vectors of other libraries\n\n"
            f"`python -m benchmarks.conformance --vectors DIR{only}`, float64; {libraries}."
        )
        markdown_file.write_text(markdown(rows, disagreements, heading))
    return int(bool(errors) or any(map(is_wrong, rows)))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--vectors", type=Path)
    what.add_argument("--peer", nargs="+", choices=(*peers.PEERS, "all"))
    parser.add_argument("--file")
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--json", type=Path, help="with --peer: the columns, for --merge")
    parser.add_argument("--merge", type=Path, nargs="+", default=[], help="columns of other runs")
    args = parser.parse_args()
    if args.peer and args.file:
        parser.error("--file goes with --vectors")
    if args.vectors and (args.json or args.merge):
        parser.error("--json and --merge go with --peer")
    if args.peer:
        sys.exit(peers.run(args.peer, markdown=args.markdown, json=args.json, merge=args.merge))
    sys.exit(run(args.vectors, args.file, args.markdown))


if __name__ == "__main__":
    main()
