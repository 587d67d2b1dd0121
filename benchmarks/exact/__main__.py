"""What is true of the estimators and where the methods end, without sampling noise.

    python -m benchmarks.exact [--markdown FILE]

One prompt, fifteen responses of one to three tokens, all enumerated, in double precision.

Takes 40 seconds on two cores.
"""

import argparse
import time
from pathlib import Path

import jax
from rich.console import Console

from benchmarks.exact.baseline_table import baseline_table
from benchmarks.exact.clip_table import clip_table
from benchmarks.exact.convergence import exact_table, sampled_table
from benchmarks.exact.gae_table import gae_table
from benchmarks.exact.kl_tables import loss_table, value_table
from benchmarks.exact.tables import Table, markdown, show
from benchmarks.exact.world import BETA, World, make_world

HEADING = f"""# An exact world

`python -m benchmarks.exact --markdown benchmarks/results/exact.md`: one prompt, three tokens (one
of them ends a response), at most three steps, so fifteen responses, all enumerated. Reference and
scores are random and fixed, beta is {BETA}. Every number is a finite sum in double precision: there
is no sampling noise except where the title says so. `0` stands for less than 1e-9, a dash for the
direction of a gradient that is 0. `tests/benchmarks/test_exact.py` asserts the zeros and
what is not zero.
"""


def tables(world: World):
    """One after the other, as they are ready."""
    yield exact_table(world)
    yield sampled_table(world)
    for off_policy in (False, True):
        yield value_table(world, off_policy=off_policy)
    for off_policy in (False, True):
        yield loss_table(world, off_policy=off_policy)
    yield gae_table(world)
    yield clip_table(world)
    yield baseline_table(world)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--markdown", type=Path, help="also write the tables to this file")
    args = parser.parse_args()
    console, start = Console(), time.monotonic()
    done: list[Table] = []
    with jax.enable_x64(True):
        for table in tables(make_world()):
            show(table, console)
            done.append(table)
    if args.markdown:
        args.markdown.write_text("\n".join([HEADING, *map(markdown, done)]))
    print(f"{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
