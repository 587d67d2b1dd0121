"""What every loss costs: a whole training step relative to plain DPO's, and the function alone.

    python -m benchmarks.losses [--rounds 7] [--length 40] [--vocabulary 4096]

Batches of 64 rows on the default small transformer. Losses take turns within a round, so that a
machine that slows down slows all of them; medians over rounds, and medians of each round's ratio to
DPO. The results go to benchmarks/results/losses.md.

Takes ten minutes on two cores.
"""

import argparse
import dataclasses
import time
from pathlib import Path

from benchmarks.losses.functions import functions
from benchmarks.losses.material import PROMPT, Material
from benchmarks.losses.measure import timings
from benchmarks.losses.page import page
from benchmarks.losses.steps import cases, compiled

RESULTS = Path(__file__).parents[1] / "results" / "losses.md"
TURN = 0.01  # seconds of calls of a function alone in each round


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--length", type=int, default=40)
    parser.add_argument("--vocabulary", type=int, default=4096)
    args = parser.parse_args()
    least = {"rounds": 1, "length": 2 * (PROMPT + 1), "vocabulary": 2}
    for name, smallest in least.items():
        if getattr(args, name) < smallest:
            parser.error(f"--{name} is {getattr(args, name)}; give at least {smallest}")
    start = time.monotonic()
    material = Material(length=args.length, vocabulary=args.vocabulary)
    steps = cases(material)
    steps.append(dataclasses.replace(steps[0], name="dpo, once more"))
    runs = compiled(steps)
    runs[-1] = runs[0]
    step_times = timings(runs, args.rounds, turn=0, what="steps")
    alone = functions(material)
    alone_times = timings([f.run() for f in alone], args.rounds, turn=TURN, what="alone")
    command = "python -m benchmarks.losses" + "".join(f" --{k} {v}" for k, v in vars(args).items())
    text = page(
        command,
        list(zip(steps, step_times, strict=True)),
        list(zip(alone, alone_times, strict=True)),
    )
    RESULTS.write_text(text)
    print(f"{text}\n{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
