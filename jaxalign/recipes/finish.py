"""Saving of a run: the model as soon as it is trained, results and report once it is evaluated."""

import json
from typing import Any

from jaxalign.recipes.adapters import save_trained
from jaxalign.recipes.run import Run
from jaxalign.recipes.text_models import TextModel
from jaxalign.report import write_report
from jaxalign.system.console import phase, tell
from jaxalign.system.files import write_atomically, writing


def keep_model(run: Run, trained: TextModel) -> None:
    """Write the folder `model`, before anything is evaluated: what comes later may be killed."""
    with phase("saving the model"), writing(run.directory / "model"):
        save_trained(run.directory, trained)
    tell(f"model: {run.directory / 'model'}")


def finish(run: Run, row: dict, **results: Any) -> dict:
    """Write `results.json`, which says how training ended, and the report; the model is kept."""
    results = {"title": f"{row['method']} run", "rows": [row], **results}
    for name, ending in run.endings.items():
        results["notes"] = [*results.get("notes", []), *ending.notes]
        results |= {"training": {name: ending.columns}} if ending.columns else {}
    write_atomically(run.directory / "results.json", json.dumps(results, indent=1).encode())
    for line in result_lines([*results["rows"], *results.get("reward_model", [])]):
        tell(line)
    with phase("writing the report"), writing(run.directory / "report.html"):
        page = write_report(run.directory)
    tell(f"report: {page}")
    return results


def result_lines(rows: list[dict]) -> list[str]:
    """Rows of results as lines, those with numbers.

    >>> result_lines([{"method": "DPO"}, {"scorer": "implicit reward", "pair_accuracy": 0.5}])
    ['implicit reward: pair_accuracy 0.5']
    """
    lines: list[str] = []
    for row in rows:
        numbers = {k: v for k, v in row.items() if isinstance(v, int | float)}
        if numbers:
            name = next((str(value) for value in row.values() if isinstance(value, str)), "result")
            lines.append(f"{name}: {', '.join(f'{k} {v:.4g}' for k, v in numbers.items())}")
    return lines
