"""What a run directory holds, read once; a file that is not there is an empty part."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxalign.errors import UserError
from jaxalign.train.metrics import read_metrics

Rows = list[dict[str, Any]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """The files of one run directory, parsed."""

    directory: Path
    config: Mapping[str, Any]
    versions: Mapping[str, Any]
    metrics: Rows
    results: Mapping[str, Any]
    samples: Rows

    @property
    def title(self) -> str:
        """The title of the results, else the name of the directory."""
        return str(self.results.get("title") or self.directory.resolve().name)

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


def read_run(directory: Path) -> Run:
    """Reads a run directory.

    Raises:
      UserError: the directory does not exist, or a file in it is not what it should be.
    """
    if not directory.is_dir():
        raise UserError(f"{directory} is not a directory; give the directory of a run")
    return Run(
        directory=directory,
        config=_read(directory / "config.json", dict),
        versions=_read(directory / "versions.json", dict),
        metrics=read_metrics(directory),
        results=_with_rows(_read(directory / "results.json", dict)),
        samples=_read(directory / "samples.json", list),
    )


def _read(path: Path, kind: type) -> Any:
    """One JSON file of the wanted kind; empty if there is no such file."""
    if not path.exists():
        return kind()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not JSON: {error.msg}") from None
    if not isinstance(content, kind):
        wanted = "an object" if kind is dict else "a list"
        raise UserError(f"{path}: holds {type(content).__name__}, wanted {wanted}")
    return content


def _with_rows(results: dict[str, Any]) -> dict[str, Any]:
    """The results with a list of rows, from whichever of three shapes they were written in.

    A list of rows; rows by name, with `[mean, standard deviation]` over seeds for a number; or a
    list of seeds beside the mean over them.
    """
    rows, seeds = results.get("rows"), results.get("seeds")
    if isinstance(rows, dict):
        found = [{"method": name, **_with_deviations(row)} for name, row in rows.items()]
    elif rows is None and seeds and all(isinstance(seed, dict) for seed in seeds):
        means = {key[5:]: value for key, value in results.items() if key.startswith("mean_")}
        every = {f"mean_{name}": value for name, value in means.items()}
        every |= {f"mean_{name}_sd": results.get(f"sd_{name}") for name in means}
        found = [{"method": f"seed {seed.get('seed')}", **seed} for seed in seeds]
        found = [{k: v for k, v in row.items() if k != "seed"} for row in found]
        found.append({"method": "all seeds", **every})
    else:
        found = rows or []
    return results | {"rows": found}


def _with_deviations(row: Mapping[str, Any]) -> dict[str, Any]:
    """`name: [mean, sd]` as `name: mean, name_sd: sd`; other lists are left out."""
    flat = {}
    for name, value in row.items():
        if isinstance(value, list) and len(value) == 2:
            flat |= {name: value[0], f"{name}_sd": value[1]}
        elif not isinstance(value, list):
            flat[name] = value
    return flat
