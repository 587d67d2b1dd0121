"""Parsed files of a run directory; a file that does not exist is an empty part.

The run may be somebody else's: every file is checked against the one description of it here, and
what would not be shown as text (control characters, lone surrogates) is spelled out.
"""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxalign.errors import UserError, printable
from jaxalign.evaluation.tables import number
from jaxalign.system.files import FileError, as_type, exists, read_json, short_path
from jaxalign.train.lines import read_lines
from jaxalign.train.metrics import read_metrics

Rows = list[dict[str, Any]]
Scalar = bool | int | float | str | None
Numbers = dict[str, Scalar | list[Any]]  # a row of a table
Metrics = list[dict[str, Scalar]]
# of runs alone
FILES = ("versions.json", "results.json", "samples.json", "metrics.jsonl", "samples.jsonl")
EXTREMES, FIXED = 3, 8  # best and worst responses; held-out prompts
DEEPEST = 30  # levels of a file
LONGEST_NAME, LONGEST_TEXT = 200, 100_000  # characters
# entries of the parts of results.json that a page can show
MOST = {"rows": 200, "reward_model": 200, "best_of_n": 5000, "curves": 5000, "calibration": 5000}
NAMES = ("title", "method", "scorer", "stage")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Results:
    """Contents of `results.json` that a page shows; the file may hold more."""

    title: str | None = None
    rows: list[Numbers] | dict[str, Numbers] | None = None
    seeds: list[Numbers | int] | None = None
    reward_model: list[Numbers] | None = None
    calibration: list[Numbers] | None = None
    curves: list[Numbers] | None = None
    best_of_n: list[Numbers] | None = None
    timing: dict[str, float | None] | None = None
    seconds: float | None = None
    notes: list[str] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """A response in `samples.json`."""

    text: str | None = None
    judge_score: float | None = None
    reward_score: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """An entry of `samples.json`."""

    prompt: str | None = None
    responses: dict[str, Answer | None] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class KeptSample:
    """A line of `samples.jsonl` that a page shows; the line may hold more."""

    stage: str
    step: int
    prompt: str | list[dict[str, Any]]
    response: str
    prompt_index: int
    score: float | None = None
    evaluation: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunFiles:
    """Files of one run directory, parsed."""

    directory: Path
    config: Mapping[str, Any]
    versions: Mapping[str, Any]
    metrics: Rows
    results: Mapping[str, Any]
    samples: Rows
    kept: Rows

    @property
    def title(self) -> str:
        """The title of the results, else the name of the directory."""
        return str(self.results.get("title") or printable(self.directory.resolve().name))

    @property
    def methods(self) -> list[str]:
        """Names of the methods in the order of the result rows."""
        return [str(row["method"]) for row in self.rows("rows") if row.get("method") is not None]

    @property
    def stages(self) -> list[str]:
        """Stages with metrics, in the order they first wrote some."""
        return list(dict.fromkeys(str(line.get("stage", "run")) for line in self.metrics))

    def rows(self, name: str) -> Rows:
        """A list of the results by its name; empty if it is absent."""
        return list(self.results.get(name) or [])


def read_run(directory: Path) -> RunFiles:
    """Reads a run directory.

    Raises:
      UserError: the directory does not exist or is of no run, or a file in it is not what it
        should be.
    """
    if not os.path.isdir(directory):
        raise UserError(f"{short_path(directory)} is not a directory; give the directory of a run")
    if not any(exists(directory / name) for name in FILES):
        raise UserError(
            f"{short_path(directory)} holds none of {', '.join(FILES)}; give the directory of a run"
        )
    return RunFiles(
        directory=directory,
        config=read_part(directory / "config.json", dict[str, Any]),
        versions=read_part(directory / "versions.json", dict[str, Scalar]),
        metrics=checked_part(directory / "metrics.jsonl", read_metrics(directory), Metrics),
        results=read_results(directory),
        samples=read_part(directory / "samples.json", list[Sample]),
        kept=read_kept(directory / "samples.jsonl"),
    )


def read_kept(path: Path) -> Rows:
    """Lines of `samples.jsonl` that a page shows: of each stage the best and the worst of the last
    iteration, the best first, and the responses to the first held-out prompts.

    Raises:
      FileError: the file cannot be read, or one of them is not what it should be.
    """
    stages: dict[str, tuple[Rows, Rows]] = {}
    for line in read_lines(path):
        training, held_out = stages.setdefault(line["stage"], ([], []))
        if line.get("evaluation"):
            held_out.append(line)
            continue
        if training and training[-1]["step"] != line["step"]:
            training.clear()
        training.append(line)
    chosen: Rows = []
    for training, held_out in stages.values():
        judged = [line for line in training if number(line.get("score")) is not None]
        judged.sort(key=lambda line: -line["score"])
        middle = len(judged) - min(EXTREMES, len(judged) // 2)
        chosen += judged[: min(EXTREMES, middle)] + judged[middle:]
        first = list(dict.fromkeys(str(line.get("prompt_index")) for line in held_out))
        chosen += [line for line in held_out if str(line.get("prompt_index")) in first[:FIXED]]
    return checked_part(path, chosen, list[KeptSample])


def read_results(directory: Path) -> dict[str, Any]:
    """Contents of `results.json` of a run, with its rows as a list; empty if there is none.

    Raises:
      UserError: it is not what it should be.
    """
    path = directory / "results.json"
    results = read_part(path, Results)
    for name, most in MOST.items():
        if len(results.get(name) or ()) > most:
            raise FileError(f"{short_path(path)}: {name} has more than {most} entries")
    return _with_rows(results)


def read_part(path: Path, kind: Any) -> Any:
    """One JSON file of the wanted kind; empty if there is no such file.

    Raises:
      FileError: it cannot be read, or holds something else.
    """
    is_list = getattr(kind, "__origin__", kind) is list
    if not exists(path):
        return [] if is_list else {}
    return checked_part(path, read_json(path, list if is_list else dict), kind)


def checked_part(path: Path, content: Any, kind: Any) -> Any:
    """Contents of a file, with texts that can be shown, checked to be of the wanted kind.

    Raises:
      FileError: it is something else.
    """
    cleaned = _cleaned(content, short_path(path))
    as_type(cleaned, kind, short_path(path))
    return cleaned


def _cleaned(content: Any, where: str, depth: int = 0, name: str = "") -> Any:
    """Contents of a file with texts that can be shown, written and drawn."""
    if depth > DEEPEST:
        raise FileError(f"{where} is nested more than {DEEPEST} levels deep")
    if isinstance(content, str):
        return printable(content[: LONGEST_NAME if name in NAMES else LONGEST_TEXT])
    if isinstance(content, dict):
        return {
            printable(str(key)[:LONGEST_NAME]): _cleaned(value, where, depth + 1, key)
            for key, value in content.items()
        }
    if isinstance(content, list):
        return [_cleaned(value, where, depth + 1) for value in content]
    return content


def _with_rows(results: dict[str, Any]) -> dict[str, Any]:
    """Results with a list of rows, from any of the three shapes that `results.json` may have.

    A list of rows; rows by name, with `[mean, standard deviation]` over seeds for a number; or a
    list of seeds beside the mean over them.
    """
    rows, seeds = results.get("rows"), results.get("seeds")
    if isinstance(rows, dict):
        listed = [{"method": name} | _with_deviations(row) for name, row in rows.items()]
    elif rows is None and seeds and all(isinstance(seed, dict) for seed in seeds):
        means = {key[5:]: value for key, value in results.items() if key.startswith("mean_")}
        every = {f"mean_{name}": value for name, value in means.items()}
        every |= {f"mean_{name}_sd": results.get(f"sd_{name}") for name in means}
        listed = [{"method": f"seed {seed.get('seed')}", **seed} for seed in seeds]
        listed = [{k: v for k, v in row.items() if k != "seed"} for row in listed]
        listed.append({"method": "all seeds", **every})
    else:
        listed = rows or []
    return results | {"rows": listed}


def _with_deviations(row: Mapping[str, Any]) -> dict[str, Any]:
    """`name: [mean, sd]` as `name: mean, name_sd: sd`; other lists are left out."""
    flat = {}
    for name, value in row.items():
        if isinstance(value, list) and len(value) == 2:
            flat |= {name: value[0], f"{name}_sd": value[1]}
        elif not isinstance(value, list):
            flat[name] = value
    return flat
