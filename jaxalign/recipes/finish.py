"""Saving of a finished run: model, results and report."""

import json
from typing import Any

from jaxalign.recipes.adapters import save_trained
from jaxalign.recipes.run import Run
from jaxalign.recipes.text_models import TextModel
from jaxalign.report import write_report
from jaxalign.system.files import write_atomically, writing


def finish(run: Run, trained: TextModel, row: dict, **results: Any) -> dict:
    """Save the model, `results.json` and the report, which say how training ended."""
    with writing(run.directory / "model"):
        save_trained(run.directory, trained)
    results = {"title": f"{row['method']} run", "rows": [row], **results}
    for name, ending in run.endings.items():
        results["notes"] = [*results.get("notes", []), *ending.notes]
        results |= {"training": {name: ending.columns}} if ending.columns else {}
    write_atomically(run.directory / "results.json", json.dumps(results, indent=1).encode())
    with writing(run.directory / "report.html"):
        page = write_report(run.directory)
    print(f"model: {run.directory / 'model'}\nreport: {page}")
    return results
