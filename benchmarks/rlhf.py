"""The main job over several seeds: mean and deviation of every number.

    python -m benchmarks.rlhf --seeds 0 1 2

Runs `jaxalign rlhf --seed S` one after the other (finished runs are read, not repeated) and prints
the mean of every number with its standard deviation over seeds, and the smallest lower end of a
win rate's 95% interval. `--config rlhf_smollm2 --directory runs/smollm2` does the same
for the job from a known model.

Takes four minutes on two cores for a seed.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

COLUMNS = {
    "win_rate": "win rate",
    "win_rate_low": "smallest lower end",
    "rule_win_rate": "win rate (rules)",
    "judge_score": "judge",
    "reward_score": "reward",
    "kl": "KL",
    "perplexity": "ppl of human texts, T = 1",
    "sample_perplexity": "ppl of samples",
    "base_perplexity": "ppl of samples, base, T = 1",
    "distinct_2": "distinct-2",
    "length": "length",
    "ended": "ended",
    "copied_whole": "copied whole",
}
SCORERS = {
    "pair_accuracy": "pairs",
    "pair_accuracy_gap1": "clear pairs",
    "macro_recall": "macro recall",
    "spearman": "Spearman",
}


def run(seed: int, directory: Path, config: Path | None) -> dict:
    """The results of one seed, with the `seconds` of its process."""
    start = time.monotonic()
    if not (directory / "results.json").exists():
        command = [sys.executable, "-m", "jaxalign", "rlhf", "--seed", str(seed)]
        command += ["--config", str(config)] if config else []
        subprocess.run([*command, "--output", str(directory)], check=True)
        (directory / "seconds.json").write_text(json.dumps(time.monotonic() - start))
    results = json.loads((directory / "results.json").read_text())
    return results | {"seconds": json.loads((directory / "seconds.json").read_text())}


def cell(name: str, values: list) -> str:
    """Mean and standard deviation of what is there, or the smallest of lower ends."""
    numbers = [value for value in values if value is not None]
    if not numbers:
        return "–"
    if name.endswith("_low"):
        return f"{min(numbers):.3f}"
    mean = statistics.mean(numbers)
    digits = 1 if abs(mean) >= 10 else 3
    deviation = statistics.stdev(numbers) if len(numbers) > 1 else 0.0
    return f"{mean:.{digits}f} ± {deviation:.{digits}f}"


def table(name: str, parts: list[list[dict]], columns: dict[str, str]) -> None:
    """A markdown table: one row a method, over the seeds; no column that none has."""
    rows = [row for part in parts for row in part]
    columns = {key: title for key, title in columns.items() if any(key in row for row in rows)}
    print("| " + " | ".join([name, *columns.values()]) + " |")
    print("|" + ":--|" + "--:|" * len(columns))
    for rows in zip(*parts, strict=True):
        cells = [cell(key, [row.get(key) for row in rows]) for key in columns]
        print("| " + " | ".join([rows[0][name], *cells]) + " |")
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--directory", type=Path, default=Path("runs/seeds"))
    parser.add_argument("--config", type=Path, help="of the job, instead of its defaults")
    options = parser.parse_args()
    folders = [options.directory / f"seed_{seed}" for seed in options.seeds]
    runs = [run(*pair, options.config) for pair in zip(options.seeds, folders, strict=True)]
    print(f"\nseeds {options.seeds}; seconds {[round(result['seconds']) for result in runs]}\n")
    table("scorer", [result["reward_model"] for result in runs], SCORERS)
    table("method", [result["rows"] for result in runs], COLUMNS)


if __name__ == "__main__":
    main()
