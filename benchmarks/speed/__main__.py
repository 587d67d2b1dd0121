"""Races of jaxalign against other libraries on the same work, as a table of ratios.

Other libraries may live in an environment of their own: `--peer-python PATH`. What is not
installed is left out with a line.
"""

import argparse
import datetime
import json
import platform
import statistics
import sys
from pathlib import Path

from benchmarks.speed.race import Entry, Worker, race
from benchmarks.speed.work import SIZES, WORKS

OURS = Entry("jaxalign", "ours")
PEERS = {
    "dpo": (
        Entry("TRL", "trl_trainers"),
        Entry("TRL, precomputed", "trl_trainers", ("--precompute",)),
        Entry("TRL, precomputed, in halves", "trl_trainers", ("--precompute", "--halves")),
        Entry("Tunix", "tunix_trainers"),
        Entry("torch loop, compiled", "torch_loop", ("--compile",)),
        Entry("torch loop", "torch_loop"),
    ),
    "sft": (Entry("TRL", "trl_trainers"),),
    "generate": (
        Entry("transformers", "transformers_generate"),
        Entry("Tunix", "tunix_generate"),
    ),
    "ppo": (Entry("TRL", "trl_ppo"),),
    "grpo": (Entry("TRL", "trl_trainers"),),
}
LIMITS = ("torch loop, compiled", "torch loop")  # no trainers: what is possible


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("--work", nargs="+", choices=WORKS, default=list(WORKS))
    parser.add_argument("--size", nargs="+", choices=SIZES, default=["small"])
    parser.add_argument("--rounds", type=int, default=7, help="turns of every side")
    parser.add_argument("--peer-python", default=sys.executable, help="of the other libraries")
    parser.add_argument("--ppo-python", help="of TRL's PPO, gone from 1.16 (default: the same)")
    parser.add_argument("--only", nargs="+", help="names of sides that take part")
    parser.add_argument("--json", type=Path, help="add every measurement to this file")
    parser.add_argument("--markdown", type=Path, help="write the table to this file")
    return parser.parse_args()


def main() -> int:
    args = parse()
    rows = [row for size in args.size for work in args.work for row in rows_of(args, work, size)]
    if args.json:
        before = json.loads(args.json.read_text()) if args.json.exists() else []
        key = ("work", "size", "name")
        fresh = {tuple(row[k] for k in key) for row in rows}
        rows = [row for row in before if tuple(row[k] for k in key) not in fresh] + rows
        args.json.write_text(json.dumps(rows, indent=1))
    text = table(rows)
    print(text)
    if args.markdown:
        args.markdown.write_text(text)
    return 0


def rows_of(args, work: str, size: str) -> list[dict]:
    """One race, as rows of the table."""
    kind = WORKS[work].kind
    entries = {OURS: sys.executable}
    for peer in PEERS[kind]:
        python = args.ppo_python if kind == "ppo" and args.ppo_python else args.peer_python
        entries[peer] = python
    if args.only:
        entries = {entry: python for entry, python in entries.items() if entry.name in args.only}
    print(f"{work}, {size}", file=sys.stderr)
    workers, absent = race(entries, work, size, args.rounds)
    for name, why in absent.items():
        print(f"  {name} does not take part: {why}", file=sys.stderr)
    return [row_of(worker, work, size) for worker in workers]


def row_of(worker: Worker, work: str, size: str) -> dict:
    return {
        "work": work,
        "size": size,
        "name": worker.entry.name,
        "rate": WORKS[work].tokens / statistics.median(worker.seconds),
        "seconds": worker.seconds,
        "cpu_seconds": worker.cpu_seconds,
        "peak_mib": worker.peak_mib,
        "date": datetime.date.today().isoformat(),
    }


def table(rows: list[dict]) -> str:
    """Markdown: medians, spread, and ours over theirs."""
    lines = [
        f"# Speed\n\n{platform.processor() or platform.machine()}, Python "
        f"{platform.python_version()}; float32, two threads, the same malloc settings for all. "
        "Ratios: the median over rounds of their seconds by ours in the same round.\n",
        "| work | model | who | tokens/s | seconds, median (least, most) | ours is faster by | "
        "peak memory, MiB | ours takes |",
        "|:--|:--|:--|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        ours = next((x for x in rows if is_ours(x) and same_race(x, row)), None)
        ratio = memory = ""
        if ours and not is_ours(row):
            pairs = zip(row["seconds"], ours["seconds"], strict=False)
            ratio = f"{statistics.median(a / b for a, b in pairs):.2f}x"
            memory = f"{ours['peak_mib'] / row['peak_mib']:.2f}x"
        seconds = row["seconds"]
        spread = f"{statistics.median(seconds):.3f} ({min(seconds):.3f}, {max(seconds):.3f})"
        cells = (row["work"], row["size"], row["name"], f"{row['rate']:,.0f}", spread, ratio)
        cells += (f"{row['peak_mib']:,.0f}", memory)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def is_ours(row: dict) -> bool:
    return row["name"] == OURS.name


def same_race(a: dict, b: dict) -> bool:
    return (a["work"], a["size"]) == (b["work"], b["size"])


if __name__ == "__main__":
    sys.exit(main())
