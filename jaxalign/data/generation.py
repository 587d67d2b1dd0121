"""`generation_config.json`: the tokens that end a response, and how a model is drawn from."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from jaxalign.system.files import exists, read_json, typed

FILE = "generation_config.json"
IDS = ("bos_token_id", "eos_token_id", "pad_token_id")  # written anew wherever a model is
WRITER = ("transformers_version", "_from_model_config")

TokenId = Annotated[int, Meta(ge=0)]
Ids = TokenId | Annotated[list[TokenId], Meta(min_length=1)] | None
Count = Annotated[int, Meta(ge=0)] | None
Share = Annotated[float, Meta(ge=0, le=1)] | None
Factor = Annotated[float, Meta(gt=0, lt=1e6)] | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Ends:
    eos_token_id: Ids = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Known(_Ends):
    """The fields whose meaning is known; those beside them are kept as they are."""

    do_sample: bool | None = None
    temperature: Annotated[float, Meta(ge=0, lt=1e6)] | None = None
    top_k: Count = None
    top_p: Share = None
    min_p: Share = None
    typical_p: Share = None
    epsilon_cutoff: Share = None
    eta_cutoff: Share = None
    repetition_penalty: Factor = None
    max_length: Count = None
    max_new_tokens: Count = None
    min_new_tokens: Count = None
    min_length: Count = None


DEFAULTS = tuple(field.name for field in dataclasses.fields(_Known) if field.name not in IDS)


@dataclasses.dataclass(frozen=True)
class Generation:
    """What stands beside a tokenizer about drawing from its model.

    stop_ids: the tokens that end a response, in the order of the file.
    defaults: temperature, top_k, ... as the file has them; they change nothing here but are kept
      for who loads what we save.
    """

    stop_ids: tuple[int, ...] = ()
    defaults: dict[str, Any] = dataclasses.field(default_factory=dict)


def read_generation(folder: Path) -> Generation:
    """What a model's folder says about it.

    As in transformers, `eos_token_id` of `generation_config.json` goes before that of
    `config.json`; both may be a number or a list. Where there is no `generation_config.json`, the
    defaults of drawing are those of `config.json`, as older models have them.

    Raises:
      FileError: a field that is none, an empty list of ids among them.
    """
    content = read_json(folder / FILE) if exists(folder / FILE) else None
    older = _older(folder / "config.json")
    ends = typed(content or {}, _Known, str(folder / FILE)).eos_token_id
    if ends is None:
        ends = typed(older, _Ends, str(folder / "config.json")).eos_token_id
    if content is None:
        names = DEFAULTS if "model_type" in older else ()
        content = {name: older[name] for name in names if older.get(name) is not None}
        typed(content, _Known, str(folder / "config.json"))
    listed = ends if isinstance(ends, list) else [] if ends is None else [ends]
    defaults = {name: x for name, x in content.items() if name not in (*IDS, *WRITER)}
    return Generation(tuple(dict.fromkeys(listed)), defaults)


def _older(file: Path) -> dict[str, Any]:
    """A `config.json`; what it leaves out is what its `text_config` says."""
    fields = read_json(file) if exists(file) else {}
    text = fields.get("text_config")
    said = {name: x for name, x in fields.items() if x is not None}
    return (text if isinstance(text, dict) else {}) | said
