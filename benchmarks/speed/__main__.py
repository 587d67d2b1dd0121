"""Races of jaxalign against other libraries on the same work, as a table of ratios.

Other libraries may live in an environment of their own: `--peer-python PATH`. What is not
installed is left out with a line.

Takes hours on two cores with all libraries; --only, --work and --rounds shorten it.
"""

import argparse
import datetime
import json
import os
import platform
import secrets
import statistics
import sys
from pathlib import Path

from benchmarks.speed.race import Entry, Worker, race, stay_on_two_processors
from benchmarks.speed.work import PARTS, PRODUCTS, SIDE, SIZES, WORKS

OURS = Entry("jaxalign", "ours")
# TRL's PPO trains a value network beside the policy.
OURS_OF = {"ppo": Entry("jaxalign", "ours", ("--separate",))}
PEERS = {
    "dpo": (
        Entry("TRL", "trl_trainers"),
        Entry("TRL, precomputed", "trl_trainers", ("--precompute",)),
        Entry("TRL, precomputed, in parts", "trl_trainers", ("--precompute", "--parts")),
        Entry("Tunix", "tunix_trainers"),
        Entry("torch loop, compiled", "torch_loop", ("--compile",)),
        Entry("torch loop", "torch_loop"),
    ),
    "sft": (Entry("TRL", "trl_trainers"),),
    "generate": (
        Entry("transformers", "transformers_generate"),
        Entry("Tunix", "tunix_generate"),
    ),
    "ppo": (Entry("TRL", "trl_ppo"), Entry("jaxalign, shared trunk", "ours")),
    "grpo": (Entry("TRL", "trl_trainers"),),
}
PEAK_ROUNDS = 5
TITLES = {
    "same": "The same malloc settings for all (freed memory is kept, huge pages); ours adds those "
    "of its program, and gives back what a compilation leaves:",
    "own": "Each side with its own malloc settings, none for the others and our program's for us:",
}
HEAD = (
    "| work | model | who | tokens/s | seconds, median (least, most) | ours is faster by | "
    "share of peak | peak memory, MiB | ours takes |",
    "|:--|:--|:--|--:|--:|--:|--:|--:|--:|",
)
PRODUCTS_BY = (Entry("XLA", "jax_product"), Entry("torch", "torch_product"))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("--work", nargs="+", choices=WORKS, default=list(WORKS))
    parser.add_argument("--size", nargs="+", choices=SIZES, default=["small"])
    parser.add_argument("--rounds", type=int, default=5, help="turns of every process")
    parser.add_argument("--processes", type=int, default=3, help="of every side, one after another")
    parser.add_argument(
        "--malloc",
        choices=("same", "own"),
        default="same",
        help="settings for all, or each its own",
    )
    parser.add_argument("--peer-python", default=sys.executable, help="of the other libraries")
    parser.add_argument("--ppo-python", help="of TRL's PPO, gone from 1.16 (default: the same)")
    parser.add_argument("--only", nargs="+", help="names of sides that take part")
    parser.add_argument("--json", type=Path, help="add every measurement to this file")
    parser.add_argument("--markdown", type=Path, help="write the table to this file")
    return parser.parse_args()


def main() -> int:
    args, sizes, works = parse(), list(SIZES), list(WORKS)
    stay_on_two_processors()
    peak = measured_peak(args)
    rows = [row for size in args.size for work in args.work for row in rows_of(args, work, size)]
    for row in rows:
        row["peak_gflops"] = peak
    if args.json:
        before = json.loads(args.json.read_text()) if args.json.exists() else []
        key = ("work", "size", "name", "malloc")
        fresh = {tuple(row[k] for k in key) for row in rows}
        rows = [row for row in before if tuple(row[k] for k in key) not in fresh] + rows
        rows.sort(key=lambda row: (sizes.index(row["size"]), works.index(row["work"])))
        args.json.write_text(json.dumps(rows, indent=1))
    text = table(rows)
    print(text)
    if args.markdown:
        args.markdown.write_text(text)
    return 0


def measured_peak(args) -> float:
    """Most GFLOP/s that this machine reaches in a large product of matrices, by either library."""
    pythons = sys.executable, args.peer_python
    workers, _ = race(dict(zip(PRODUCTS_BY, pythons, strict=True)), "", "", PEAK_ROUNDS)
    work = 2e-9 * SIDE**3 * PRODUCTS
    for worker in workers:
        best = work / min(worker.seconds)
        print(f"product of matrices by {worker.entry.name}: {best:.0f} GFLOP/s", file=sys.stderr)
    return max(work / min(worker.seconds) for worker in workers)


def rows_of(args, work: str, size: str) -> list[dict]:
    """One race, as rows of the table."""
    kind = WORKS[work].kind
    entries = {OURS_OF.get(kind, OURS): sys.executable}
    for peer in PEERS[kind]:
        python = args.ppo_python if kind == "ppo" and args.ppo_python else args.peer_python
        entries[peer] = sys.executable if peer.is_ours else python
    if args.only:
        entries = {entry: python for entry, python in entries.items() if entry.name in args.only}
    print(f"{work}, {size}", file=sys.stderr)
    workers, absent = race(entries, work, size, args.rounds, malloc=args.malloc)
    for number in range(1, args.processes):  # how a process got its memory is luck
        present = {worker.entry: entries[worker.entry] for worker in workers}
        again, gone = race(present, work, size, args.rounds, seed=number, malloc=args.malloc)
        absent |= gone
        others = {worker.entry: worker for worker in again}
        workers = [one.joined(others[one.entry]) for one in workers if one.entry in others]
    for name, why in absent.items():
        print(f"  {name} does not take part: {why}", file=sys.stderr)
    counts = f"--rounds {args.rounds} --processes {args.processes}"
    if args.malloc != "same":
        counts += f" --malloc {args.malloc}"
    said = {"malloc": args.malloc, "race": secrets.token_hex(8)}
    return [row_of(worker, work, size, counts) | said for worker in workers]


def row_of(worker: Worker, work: str, size: str, counts: str) -> dict:
    return {
        "work": work,
        "size": size,
        "name": worker.entry.name,
        "rate": WORKS[work].tokens / statistics.median(worker.seconds),
        "seconds": worker.seconds,
        "cpu_seconds": worker.cpu_seconds,
        "peak_mib": worker.peak_mib,
        "versions": worker.versions,
        "command": f"--work {work} --size {size} {counts}",
        "flops": WORKS[work].flops(SIZES[size]),
        "date": datetime.date.today().isoformat(),
    }


def table(rows: list[dict]) -> str:
    """Markdown: medians, spread, ours over theirs, and what took part."""
    lines = [
        f"# Speed\n\n{processor()}, {os.cpu_count()} cores, Python {platform.python_version()}; "
        "float32, two threads. Ratios: the median over rounds of their seconds by ours in the same "
        "round. Share of the peak: nominal operations of the work a second (every row by itself: a "
        "prompt that is read once for two responses counts twice), by what the quicker of torch "
        f"and XLA reached in a product of two {SIDE} x {SIDE} matrices just before. Our DPO step "
        f"is {PARTS[SIZES['small']]} micro-batches (small) or {PARTS[SIZES['135m']]} (135m); "
        "whoever does so too stands as `in parts`. PPO trains a value network beside the policy, "
        "as TRL's does; `shared trunk` has a value head on the policy instead.\n"
    ]
    for malloc, title in TITLES.items():
        if chosen := [row for row in rows if row["malloc"] == malloc]:
            lines += [f"{title}\n", *HEAD, *(line_of(row, chosen) for row in chosen), ""]
    races = {
        (row["command"], row["date"], f"{row['peak_gflops']:.0f} GFLOP/s"): None for row in rows
    }
    lines += ["`python -m benchmarks.speed` with:", ""]
    lines += [f"- `{command}`: {date}, peak {peak}" for command, date, peak in races]
    lines += ["", "Versions:", ""]
    lines += [f"- {line}" for line in dict.fromkeys(map(versions_of, rows))]
    return "\n".join(lines) + "\n"


def line_of(row: dict, rows: list[dict]) -> str:
    """A row of the table, with ratios to ours of the same race."""
    ours = next((x for x in rows if is_ours(x) and same_race(x, row)), None)
    ratio = memory = ""
    if ours and not is_ours(row):
        pairs = zip(row["seconds"], ours["seconds"], strict=True)
        ratio = f"{statistics.median(a / b for a, b in pairs):.2f}x"
        memory = f"{ours['peak_mib'] / row['peak_mib']:.2f}x"
    seconds = statistics.median(row["seconds"])
    spread = f"{seconds:.3f} ({min(row['seconds']):.3f}, {max(row['seconds']):.3f})"
    share = f"{1e-9 * row['flops'] / seconds / row['peak_gflops']:.0%}"
    cells = (row["work"], row["size"], row["name"], f"{row['rate']:,.0f}", spread, ratio)
    cells += (share, f"{row['peak_mib']:,.0f}", memory)
    return f"| {' | '.join(cells)} |"


def versions_of(row: dict) -> str:
    """A side of the race with what it was made of."""
    numbers = ", ".join(f"{name} {number}" for name, number in row["versions"].items())
    return f"{row['name']} ({WORKS[row['work']].kind}): {numbers}"


def processor() -> str:
    """The name of this machine's processor, as far as the system tells it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def is_ours(row: dict) -> bool:
    return row["name"] == OURS.name


def same_race(a: dict, b: dict) -> bool:
    return a["race"] == b["race"]


if __name__ == "__main__":
    sys.exit(main())
