"""Hostile inputs and faults, by kind: what the program makes of each.

    python -m benchmarks.hostile [--kind KIND] [--only KIND/NAME] [--quick] [--markdown FILE]

Exit status 1 if a trial ends with a traceback, a hang, memory beyond the bound, something wrong
accepted in silence, or lost work.

Takes 15 minutes on two cores, and two with --quick.
"""

import argparse
import importlib
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.hostile.judge import BAR
from benchmarks.hostile.table import markdown, summary

COMMANDS = (
    *("sft", "reward", "dpo", "kto", "ppo", "grpo", "online", "distill", "evaluate", "generate"),
    *("explain", "export", "ratings", "rlhf"),
)
HEAVY = (
    *("orbax.checkpoint", "gguf", "pyarrow.parquet", "tensorboardX", "matplotlib.pyplot", "tyro"),
    *("jinja2.sandbox", "safetensors.numpy", "tokenizers", "optax", "jaxalign.report.page"),
    *("jaxalign.pretrained.gguf.weights", "jaxalign.pretrained.gguf.tokenizer"),
)
QUICK = 150  # trials of --quick


def main() -> int:
    """Make the trials that are asked for, print the table, and return the exit status."""
    given = arguments()
    work = Path(tempfile.mkdtemp(prefix="hostile-", dir=given.work))
    try:
        prepare(work)
        return run(given, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hostile", description=__doc__)
    parser.add_argument("--only", nargs="+", default=[], help="KIND/NAME of trials")
    parser.add_argument("--kind", nargs="+", default=[], help="kinds of fault")
    parser.add_argument("--seed", type=int, default=0, help="of random mutations and samples")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} quick ones, drawn by seed")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    parser.add_argument("--limit", type=float, default=20.0, help="seconds of a trial")
    parser.add_argument("--long-limit", type=float, default=240.0, help="with own processes")
    parser.add_argument("--workers", type=int, default=2, help="processes side by side")
    parser.add_argument("--markdown", type=Path, help="file for the table")
    parser.add_argument("--failing", type=Path, help="file for the trials that failed")
    parser.add_argument("--tree", default="", help="what is tested, for the heading")
    parser.add_argument("--work", help="where a temporary directory is made")
    return parser.parse_args()


def prepare(work: Path) -> None:
    """Import all that a trial may need, and start no jax: that does not survive a fork."""
    programs = work / "programs"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(programs))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["HF_HUB_OFFLINE"] = "1"
    quick = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    os.environ.setdefault("XLA_FLAGS", quick)
    import warnings

    import jax

    # Processes side by side share the cache of compiled programs, which does not expect it.
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation")
    work.chmod(0o755)  # a trial plays another user
    jax.config.update("jax_disable_most_optimizations", True)
    for name in (*HEAVY, "jaxalign.cli", *(f"jaxalign.commands.{name}" for name in COMMANDS)):
        importlib.import_module(name)


def run(given: argparse.Namespace, work: Path) -> int:
    """Choose the trials, make them, and say what came of them."""
    from benchmarks.hostile.base import Base, in_a_process, make
    from benchmarks.hostile.kinds import all_trials
    from benchmarks.hostile.pool import run_all

    base, began = Base(work), time.monotonic()
    trials = all_trials(base, given.seed)
    for what, names in (("kind", given.kind), ("label", given.only)):
        if unknown := sorted(set(names) - {getattr(trial, what) for trial in trials}):
            print(f"no trial {unknown[0]}; --list prints the names", file=sys.stderr)
            return 2
    if given.kind:
        trials = [trial for trial in trials if trial.kind in given.kind]
    if given.only:
        trials = [trial for trial in trials if trial.label in given.only]
    if given.quick:
        quick = [trial for trial in trials if not trial.alone]
        trials = random.Random(given.seed).sample(quick, min(QUICK, len(quick)))
    if given.list:
        print("\n".join(trial.label for trial in trials))
        return 0
    if in_a_process(lambda: make(base)):
        print("the program refuses what trials start from", file=sys.stderr)
        return 1
    done = iter(range(1, len(trials) + 1))

    def report(found) -> None:
        number = next(done)
        if found.outcome not in ("right", "line") or given.only:
            print(f"{found.outcome:9} {found.trial.label}  {found.detail}", flush=True)
        if number % 100 == 0:
            print(f"{number}/{len(trials)} after {time.monotonic() - began:.0f} s", flush=True)

    outcomes = []
    for alone in (False, True):  # what starts processes needs a worker in which no jax has started
        some = [trial for trial in trials if trial.alone == alone]
        limit = given.long_limit if alone else given.limit
        outcomes += run_all(some, base, limit=limit, workers=given.workers, report=report)
    print(summary(outcomes))
    if given.markdown:
        given.markdown.write_text(markdown(outcomes, given.tree, time.monotonic() - began))
    if given.failing:
        failing = [x for x in outcomes if x.outcome not in ("right", "line")]
        lines = sorted(f"{x.outcome:9} {x.trial.label}  {x.detail}" for x in failing)
        given.failing.write_text("".join(f"{line.splitlines()[0]}\n" for line in lines))
    return int(any(found.outcome in BAR for found in outcomes))


if __name__ == "__main__":
    sys.exit(main())
