"""Mutants of the mathematics, and those that no test notices.

    python -m benchmarks.mutation [--file losses/dpo.py] [--jobs 2] [--sample 200 --seed 0]

Every place of the losses, advantages, KL, log-probabilities, masked statistics and diagnostics is
broken in turn: operators, signs, constants, comparisons, defaults, swapped arguments and branches,
forgotten checks, `stop_gradient`, `widen`, `axis_name`, masks. The tests that run the line are run
until one fails, the quickest first. A mutant that survives needs a test, or a sentence in
explanations.toml that says why no test can notice it. Exit status 1 if one has neither, or if an
explanation is stale. Results are kept, so that a second run tries what is new.

Takes hours on two cores, and minutes where its results are kept.
"""

import argparse
import os
import platform
import random
import shutil
import sys
import time
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")

from benchmarks.mutation import explanations, report
from benchmarks.mutation.coverage import coverage
from benchmarks.mutation.mutants import Mutant, mutants
from benchmarks.mutation.places import Places, jaxalign_places
from benchmarks.mutation.runner import Result, run
from benchmarks.mutation.store import Store


def prepare_jax(places: Places):
    """Imported once for all children, which share what XLA compiled."""
    import jax

    jax.config.update("jax_compilation_cache_dir", str(places.cache / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def chosen(everything: list[Mutant], args) -> list[Mutant]:
    """Those that the arguments ask for."""
    found = [mutant for mutant in everything if args.file in (None, mutant.file)]
    if args.sample is not None:
        found = sorted(random.Random(args.seed).sample(found, min(args.sample, len(found))))
    return found[: args.limit]


def measure(places: Places, wanted: list[Mutant], args) -> tuple[list[Result], int]:
    """The result of every mutant that is wanted, and how many an earlier run had."""
    coverages = coverage(places, args.jobs)
    for test in (test for one in coverages.values() for test in one.failed):
        print(f"left out, it fails without any mutant: {test}", file=sys.stderr)
    store = Store(places, coverages, args.seconds)
    kept = {mutant.key: store.find(mutant) for mutant in wanted}
    results = [result for result in kept.values() if result]
    todo = [mutant for mutant in wanted if kept[mutant.key] is None]
    print(f"{len(wanted)} mutants, {len(results)} known from earlier runs", flush=True)

    def note(result: Result):
        store.keep(result)
        results.append(result)
        if result.survived or not args.survivors_only:
            mutant = result.mutant
            place = f"[{len(results)}/{len(wanted)}] {mutant.file}:{mutant.lines[0]}"
            print(place, mutant.function, mutant.description, result.verdict, result.test, "\n")

    if todo:
        options = {"jobs": args.jobs, "seconds": args.seconds, "killers": store.killers()}
        run(places, coverages, todo, report=note, **options)
    return results, len(wanted) - len(todo)


def heading(args, seconds: float, known: int) -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in ("jax", "numpy", "pytest"))
    flags = f" --seconds {args.seconds:g}"
    flags += f" --file {args.file}" if args.file else ""
    if args.sample is not None:
        flags += f" --sample {args.sample} --seed {args.seed}"
    return (
        "# Mutants of the mathematics\n\n"
        f"`python -m benchmarks.mutation{flags}`; Python {platform.python_version()}, {versions}; "
        f"{seconds / 60:.0f} minutes with {args.jobs} processes, {known} mutants known from before."
    )


def parse(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--file", help="one file of the package: losses/dpo.py")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at a time")
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="of tests that a mutant must outlive"
    )
    parser.add_argument("--sample", type=int, help="this many mutants, drawn with --seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, help="the first of them only")
    parser.add_argument("--survivors-only", action="store_true", help="print no other mutant")
    parser.add_argument("--entries", action="store_true", help="print entries to be explained")
    parser.add_argument("--markdown", type=Path, help="write the report to this file")
    parser.add_argument("--fresh", action="store_true", help="forget earlier runs")
    return parser.parse_args(arguments)


def main() -> int:
    args, places, start = parse(), jaxalign_places(), time.perf_counter()
    if args.file not in (None, *places.files):
        print(f"--file {args.file}: not mutated; one of {', '.join(places.files)}", file=sys.stderr)
        return 2
    if args.fresh:
        shutil.rmtree(places.cache, ignore_errors=True)
    prepare_jax(places)
    everything = [mutant for file in places.files for mutant in mutants(places.path(file), file)]
    explained = explanations.read()
    results, known = measure(places, chosen(everything, args), args)
    old = explanations.stale(explained, everything, results)
    seconds = time.perf_counter() - start
    text = report.page(results, explained, heading(args, seconds, known), old)
    print(text)
    if args.entries:
        unknown = [r.mutant for r in results if r.survived and r.mutant.key not in explained]
        print("\n\n".join(map(explanations.entry, sorted(unknown))))
    if args.markdown:
        args.markdown.write_text(text)
    total = report.score(results, explained)
    print(f"{100 * total.share:.1f} % killed ({report.others(results)}), goal {report.GOAL:.0%};")
    print(f"{100 * total.noticeable:.1f} % of those that are not explained as equivalent")
    return int(bool(total.unexplained or old))


if __name__ == "__main__":
    sys.exit(main())
