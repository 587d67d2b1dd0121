"""Names of special tokens in `tokenizer_config.json` and the files beside it."""

import dataclasses
import json
from typing import Any

PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"
SPECIAL_FIELDS = ("pad_token", "bos_token", "eos_token")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _TokenEntry:
    """A token as an object: its spelling, and whether it is special."""

    content: str | None = None
    special: bool | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class _NamedTemplate:
    """One of several chat templates."""

    name: str
    template: str


_Name = str | _TokenEntry | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpecialTokenFields:
    """Schema of what is read of `tokenizer_config.json` and `special_tokens_map.json`."""

    pad_token: _Name = None
    bos_token: _Name = None
    eos_token: _Name = None
    unk_token: _Name = None
    additional_special_tokens: list[_Name] | None = None
    extra_special_tokens: list[_Name] | dict[str, _Name] | None = None
    added_tokens_decoder: dict[str, _TokenEntry] | None = None
    chat_template: str | list[_NamedTemplate] | None = None


def json_text(content: dict[str, Any]) -> str:
    """Indented JSON of an object, letters as they are."""
    return json.dumps(content, ensure_ascii=False, indent=2)


def special_token_names(settings: dict[str, Any]) -> dict[str, str]:
    """Field to special token, of fields that name one (plain, or as `{"content": name}`)."""
    fields = {key: _token_name(value) for key, value in settings.items() if key.endswith("_token")}
    return {key: name for key, name in fields.items() if name is not None}


def _token_name(value: Any) -> str | None:
    """Spelling of a token that a field names; None: it names none."""
    content = value.get("content") if isinstance(value, dict) else value
    return content if isinstance(content, str) else None  # add_bos_token is no name


def all_special_token_names(settings: dict[str, Any]) -> list[str]:
    """Special tokens that have a field of their own, and those that are only listed."""
    lists = [settings.get("additional_special_tokens"), settings.get("extra_special_tokens")]
    values = [v for x in lists for v in (x.values() if isinstance(x, dict) else x or ())]
    added = (settings.get("added_tokens_decoder") or {}).values()
    names = [_token_name(value) for value in [*values, *(x for x in added if x.get("special"))]]
    return [*special_token_names(settings).values(), *(name for name in names if name is not None)]
