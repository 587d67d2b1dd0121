"""Model card of an exported model, from the files of its run."""

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxalign.data.hub import hub_data_set
from jaxalign.errors import printable
from jaxalign.recipes.base_model import ORIGINS, base_of, hub_name, licence_of, origins
from jaxalign.recipes.checkpoint_models import checkpoint_name
from jaxalign.recipes.going_on import flat_fields
from jaxalign.recipes.reproduction import command_of
from jaxalign.recipes.text_models import TextModel
from jaxalign.report.run import Scalar, read_part, read_results
from jaxalign.system.files import exists

# no address, no mark-up, and nothing that begins a heading, a list or a quotation
PLAIN = re.compile(
    r"(?!.*www\.)[^\W\d_](?:[^\W_]|[ ,;()=+%'\"/−±-]|[.](?=[\d\s]|$)|:(?=\s)|(?<=\w)_(?=\w))*"
    r"|-?\d[\d.e+-]*"
)
DATA = {"path": "Trained on", "evaluation_path": "Held out"}
MOST = 10**300  # numbers beyond have no decimal form in a float
UNSAID = ("data.", "place.", *ORIGINS)  # said elsewhere in the card, or of no interest there


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sources:
    """Schema of a run's data settings, as far as the card needs them."""

    path: str = ""
    evaluation_path: str = ""
    mixture: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origins:
    """Schema of a run's `config.json`, as far as the card needs it."""

    policy: str = ""
    init: str = ""
    data: Sources | None = None


def model_card(source: str, text_model: TextModel) -> str:
    """`README.md`: front matter for the hub, then data, method, metrics and versions of the run.

    The run may be somebody else's: what its files say is shown as text, never as Markdown.

    Args:
      source: what the model was loaded from; of a run directory, its files are read.
      text_model: the model.

    Raises:
      UserError: a file of the run is not what it should be.
    """
    checkpoint = checkpoint_name(source)
    folder = Path(source).parent if Path(source).name == "model" else Path(source)
    folder = checkpoint.run if checkpoint else folder
    versions = config = results = {}
    if exists(folder / "versions.json"):  # else its config.json is that of a model
        versions = read_part(folder / "versions.json", dict[str, Scalar])
        config = read_part(folder / "config.json", Origins)
        results = {} if checkpoint else read_results(folder)  # which are of its end
    base = base_of(origins(config)[0]) if origins(config) else ""
    command = command_of(str(versions.get("configuration", "")), config)
    rows = results.get("rows", [])
    title = " ".join(str(row["method"]) for row in rows[:1] if "method" in row)
    parts = [
        _front_matter(base, _data_sets(config), text_model),
        f"# {as_text(title or Path(source).name)}\n",
        *_section("Model", _facts(text_model)),
        *_section("Data", _data(config, base)),
        *_section("Metrics", _metrics(results)),
        *_section("Reproduction", (f"- {as_code(command)}" for _ in range(bool(command)))),
        *_section("Settings", _settings(config)),
        *_section("Versions", (f"- {as_text(k)}: {as_text(v)}" for k, v in versions.items())),
    ]
    return "\n".join(parts)


def as_text(value: object) -> str:
    """Markdown that shows any value literally: plain words and numbers as they are, all else as
    code.

    >>> as_text("DPO, beta 0.1"), as_text("![x](http://y)"), as_text("a`b")
    ('DPO, beta 0.1', '`![x](http://y)`', '``a`b``')
    """
    text = " ".join(printable(str(value)).split())
    if PLAIN.fullmatch(text):
        return text
    runs = [len(run) for run in re.findall("`+", text)]
    fence = "`" * (max(runs, default=0) + 1)
    pad = " " if not text or "`" in (text[0], text[-1]) else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def as_code(text: str) -> str:
    """Markdown of a name, always as code."""
    code = as_text(text)
    return code if code.startswith("`") else f"`{code}`"


def _data_sets(config: Mapping[str, Any]) -> list[str]:
    """Data sets of the hub that a run was trained on, by their ids."""
    data = config.get("data") or {}
    names = [hub_data_set(source) for source in (data.get("path"), *(data.get("mixture") or {}))]
    return [*dict.fromkeys(name for name in names if name)]


def _front_matter(base: str, data_sets: Sequence[str], text_model: TextModel) -> str:
    """YAML; JSON's spelling of texts and lists is YAML too. Without a base there is no licence to
    tell: that of a model trained from nothing is its owner's to choose.
    """
    scored = "score" in text_model.model.config.heads_out
    fields: dict[str, Any] = {"library_name": "transformers"}
    fields["pipeline_tag"] = "text-classification" if scored else "text-generation"
    fields["tags"] = ["jaxalign"]
    if hub_name(base):
        fields["base_model"] = base
    if base:
        fields["license"] = licence_of(base)
    if data_sets:
        fields["datasets"] = data_sets
    lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in fields.items()]
    return "\n".join(["---", *lines, "---\n"])


def _facts(text_model: TextModel) -> Iterator[str]:
    config, params = text_model.model.config, text_model.params
    yield f"- {config.layers} layers of width {config.width}, {config.heads} heads"
    yield f"- {config.vocab_size} token ids, texts of up to {config.max_length} tokens"
    tokenizer = text_model.tokenizer
    ends = (f"{as_code(tokenizer.token(i))}, id {i}" for i in tokenizer.stop_ids)
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


def _data(config: Mapping[str, Any], base: str) -> Iterator[str]:
    for origin in origins(config):
        yield f"- Started from: {as_code(origin)}"
    if base:
        yield f"- Base model: {as_code(base)}, licence: {as_text(licence_of(base))}"
    data = config.get("data") or {}
    for name, label in DATA.items():
        if path := data.get(name):
            yield f"- {label}: {as_code(path)}"
    for source, weight in (data.get("mixture") or {}).items():
        yield f"- Trained on: {as_code(source)}, weight {_number(weight)}"


def _metrics(results: Mapping[str, Any]) -> Iterator[str]:
    for name in ("rows", "reward_model"):
        for row in results.get(name) or []:
            label = as_text(row.get("method") or row.get("scorer") or "")
            for metric, value in row.items():
                end_of = re.sub("_(low|high)$", "", metric)
                if isinstance(value, int | float) and (end_of == metric or end_of not in row):
                    ends = (row.get(f"{metric}_low"), row.get(f"{metric}_high"))
                    yield f"- {label}, {as_text(metric)}: {_number(value)}{_interval(*ends)}"
    yield from (f"- {as_text(note)}" for note in results.get("notes") or [])


def _number(value: float) -> str:
    return f"{value:.6g}" if abs(value) < MOST else "out of range"


def _interval(low: object, high: object) -> str:
    """The 95% interval of a number; empty where it has none."""
    if isinstance(low, int | float) and isinstance(high, int | float):
        return f" (95% interval {_number(low)} to {_number(high)})"
    return ""


def _settings(config: Mapping[str, Any]) -> Iterator[str]:
    for name, value in flat_fields(config).items():
        if not name.startswith(UNSAID):
            text = value if isinstance(value, str) and value else json.dumps(value)
            yield f"- {as_text(name)}: {as_text(text)}"


def _section(title: str, lines: Iterator[str]) -> list[str]:
    """A heading and its lines; nothing where there are none."""
    written = "\n".join(lines)
    return [f"## {title}\n\n{written}\n"] if written else []
