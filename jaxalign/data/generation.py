"""Generation settings of a model folder: the ids that end a response, defaults of sampling."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from jaxalign.system.files import as_type, exists, read_json

FILE = "generation_config.json"
IDS = ("bos_token_id", "eos_token_id", "pad_token_id")  # written anew wherever a model is
WRITER = ("transformers_version", "_from_model_config")

TokenId = Annotated[int, Meta(ge=0)]
Ids = TokenId | Annotated[list[TokenId], Meta(min_length=1)] | None
Count = Annotated[int, Meta(ge=0)] | None
Share = Annotated[float, Meta(ge=0, le=1)] | None
Factor = Annotated[float, Meta(gt=0, lt=1e6)] | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class _StopIds:
    """Schema of the ids that end a response."""

    eos_token_id: Ids = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class _KnownFields(_StopIds):
    """Schema of the fields whose meaning is known; others are kept as they are."""

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


DEFAULTS = tuple(field.name for field in dataclasses.fields(_KnownFields) if field.name not in IDS)


@dataclasses.dataclass(frozen=True)
class Generation:
    """Ids that end a response, and defaults of sampling.

    stop_ids: ids that end a response, in the order of the file.
    defaults: temperature, top_k, ... as the file has them; they change nothing here and are
      kept when the model is saved.
    """

    stop_ids: tuple[int, ...] = ()
    defaults: dict[str, Any] = dataclasses.field(default_factory=dict)


def read_generation(folder: Path) -> Generation:
    """Generation settings of a model folder.

    As in transformers, `eos_token_id` of `generation_config.json` goes before that of
    `config.json`; both may be a number or a list. Where there is no `generation_config.json`, the
    defaults of sampling are those of `config.json`, as older models have them.

    Raises:
      FileError: a field of a wrong type or range, such as an empty list of ids.
    """
    content = read_json(folder / FILE) if exists(folder / FILE) else None
    model_config = _model_config(folder / "config.json")
    stop_ids = as_type(content or {}, _KnownFields, str(folder / FILE)).eos_token_id
    if stop_ids is None:
        stop_ids = as_type(model_config, _StopIds, str(folder / "config.json")).eos_token_id
    if content is None:
        names = DEFAULTS if "model_type" in model_config else ()
        content = {name: model_config[name] for name in names if model_config.get(name) is not None}
        as_type(content, _KnownFields, str(folder / "config.json"))
    stop_list = stop_ids if isinstance(stop_ids, list) else [] if stop_ids is None else [stop_ids]
    defaults = {name: x for name, x in content.items() if name not in (*IDS, *WRITER)}
    return Generation(tuple(dict.fromkeys(stop_list)), defaults)


def _model_config(file: Path) -> dict[str, Any]:
    """Fields of a `config.json`, with those of its `text_config` that it lacks."""
    fields = read_json(file) if exists(file) else {}
    text = fields.get("text_config")
    own_fields = {name: x for name, x in fields.items() if x is not None}
    return (text if isinstance(text, dict) else {}) | own_fields
