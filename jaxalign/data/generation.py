"""`generation_config.json`: the tokens that end a response, and how a model is drawn from."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from jaxalign.files import exists, read_json, typed

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
    `config.json`; both may be a number or a list.

    Raises:
      FileError: a field that is none, an empty list of ids among them.
    """
    content = read_json(folder / FILE) if exists(folder / FILE) else {}
    ends = typed(content, _Known, str(folder / FILE)).eos_token_id
    if ends is None and exists(folder / "config.json"):
        config = read_json(folder / "config.json")
        ends = typed(config, _Ends, str(folder / "config.json")).eos_token_id
    listed = ends if isinstance(ends, list) else [] if ends is None else [ends]
    defaults = {name: x for name, x in content.items() if name not in (*IDS, *WRITER)}
    return Generation(tuple(dict.fromkeys(listed)), defaults)
