"""The model card of an exported model: what is known of it, and nothing that is not."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxalign.models.sources import HUB_ID
from jaxalign.stages.run import flat_fields
from jaxalign.stages.text_models import TextModel

ORIGINS = ("policy", "init")  # of a run's configuration: what it started from
DATA = {"path": "Trained on", "evaluation_path": "Held out"}
UNSAID = ("data.", "place.", *ORIGINS)  # said elsewhere in the card, or of no interest there


def model_card(source: str, text_model: TextModel) -> str:
    """`README.md`: front matter for the hub, then data, method, metrics and versions of the run.

    Args:
      source: what the model was loaded from; of a run directory, its files are read.
      text_model: the model.
    """
    folder = Path(source).parent if Path(source).name == "model" else Path(source)
    run = {name: _read(folder / f"{name}.json") for name in ("config", "results", "versions")}
    if not run["versions"]:  # no run directory: its config.json is that of a model
        run = {name: {} for name in run}
    rows = run["results"].get("rows", [])
    title = " ".join(str(row["method"]) for row in rows[:1]) or Path(source).name
    parts = [
        _front_matter(run["config"], text_model),
        f"# {title}\n",
        *_section("Model", _facts(text_model)),
        *_section("Data", _data(run["config"])),
        *_section("Metrics", _metrics(run["results"])),
        *_section("Settings", _settings(run["config"])),
        *_section("Versions", (f"- {k}: {v}" for k, v in run["versions"].items())),
    ]
    return "\n".join(parts)


def _front_matter(config: Mapping[str, Any], text_model: TextModel) -> str:
    """YAML; JSON's spelling of texts and lists is YAML too."""
    scored = "score" in text_model.model.config.heads_out
    fields: dict[str, Any] = {"library_name": "transformers"}
    fields["pipeline_tag"] = "text-classification" if scored else "text-generation"
    fields["tags"] = ["jaxalign"]
    if base := [x for x in _origins(config) if HUB_ID.fullmatch(x) and not Path(x).exists()]:
        fields["base_model"] = base[0]
    lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in fields.items()]
    return "\n".join(["---", *lines, "---\n"])


def _origins(config: Mapping[str, Any]) -> list[str]:
    return [config[name] for name in ORIGINS if config.get(name)]


def _facts(text_model: TextModel) -> Iterator[str]:
    config, params = text_model.model.config, text_model.params
    yield f"- {config.layers} layers of width {config.width}, {config.heads} heads"
    yield f"- {config.vocab_size} token ids, texts of up to {config.max_length} tokens"
    tokenizer = text_model.tokenizer
    ends = (f"{tokenizer.token(i)!r}, id {i}" for i in tokenizer.stop_ids)
    yield f"- A text ends with {' or '.join(ends)}"
    if "score" in config.heads_out:
        bias = float(np.asarray(params["score"]["readout"]["bias"])[0])
        yield "- One score a text, read off its last token"
        yield (
            f"- `score_bias.safetensors` holds {bias:.6g}, which is added to every score; the "
            "class of transformers has no such bias, and its scores are lower by that number"
        )
        if tokenizer.pad_id == tokenizer.eos_id:
            yield (
                "- The end of a text and padding are one id: transformers would read the score off "
                "the token before the end; give it texts without the end, or another padding id"
            )
    if "value" in config.heads_out:
        yield "- `value_head.safetensors` holds a value head, named as in TRL"


def _data(config: Mapping[str, Any]) -> Iterator[str]:
    for origin in _origins(config):
        yield f"- Started from: `{origin}`"
    for name, label in DATA.items():
        if path := config.get("data", {}).get(name):
            yield f"- {label}: `{path}`"


def _metrics(results: Mapping[str, Any]) -> Iterator[str]:
    for name in ("rows", "reward_model"):
        for row in results.get(name, []):
            label = row.get("method") or row.get("scorer")
            for metric, value in row.items():
                if isinstance(value, int | float):
                    yield f"- {label}, {metric}: {value:.6g}"
    yield from (f"- {note}" for note in results.get("notes", []))


def _settings(config: Mapping[str, Any]) -> Iterator[str]:
    for name, value in flat_fields(config).items():
        if not name.startswith(UNSAID):
            yield f"- {name}: {json.dumps(value, ensure_ascii=False)}"


def _section(title: str, lines: Iterator[str]) -> list[str]:
    """A heading and its lines; nothing where there are none."""
    written = "\n".join(lines)
    return [f"## {title}\n\n{written}\n"] if written else []


def _read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
