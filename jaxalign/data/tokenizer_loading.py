"""Loading of tokenizers in the format of Hugging Face: `tokenizer.json` and the files beside it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers

from jaxalign.data.dummy_prefix import check_continues
from jaxalign.data.generation import Generation, read_generation
from jaxalign.data.marks import with_special_tokens
from jaxalign.data.special_tokens import (
    BOS,
    EOS,
    PAD,
    SPECIAL_FIELDS,
    SpecialTokenFields,
    all_special_token_names,
    json_text,
    special_token_names,
)
from jaxalign.data.tokenizer import TEMPLATE_FILE, Tokenizer
from jaxalign.data.tokenizer_json import read_backend
from jaxalign.errors import UserError
from jaxalign.system.files import as_type, exists, quote, read_bytes, read_json, short_path


def load_tokenizer(path: str | Path) -> Tokenizer:
    """Tokenizer in the format of Hugging Face: a directory with `tokenizer.json`, or that file.

    The special tokens are those that `tokenizer_config.json` beside it names. One that it leaves
    out is that of `special_tokens_map.json` or the id in `config.json`, as older models have them;
    without any of these, <pad>, <bos> and <eos>. Where a model has no padding token, EOS serves:
    masks, not ids, say what is padding.

    A response ends with `eos_token` and with every other `eos_token_id` of
    `generation_config.json`, or of `config.json` where that names none (Gemma's <end_of_turn>, the
    <|eot_id|> of Llama 3). The first is what is written behind a response.

    The chat template is `chat_template.jinja` beside it, or else `chat_template` of
    `tokenizer_config.json`: of several, the one named "default".

    Args:
      path: of the directory or file.

    Raises:
      UserError: there is none, or one that would not give back texts, or names no EOS.
    """
    file = Path(path) / "tokenizer.json" if Path(path).is_dir() else Path(path)
    if not exists(file):
        raise UserError(f"no tokenizer at {short_path(file)}")
    backend, generation = read_backend(file), read_generation(file.parent)
    tokens = {i: token for token, i in backend.get_vocab(with_added_tokens=True).items()}
    _check_stops(file, tokens, generation)
    settings = _settings(file, tokens, generation)
    stops = [tokens[i] for i in generation.stop_ids if i in backend.get_added_tokens_decoder()]
    backend = _plain_backend(backend, [*all_special_token_names(settings), *stops])
    check_continues(backend, short_path(file))
    names = special_token_names(settings)
    ids = {key: _token_id(backend, names.get(key), file) for key in SPECIAL_FIELDS}
    eos_id = next((i for i in (ids["eos_token"], *generation.stop_ids) if i is not None), None)
    if eos_id is None:
        raise UserError(
            f"{short_path(file)}: no EOS; name it as eos_token in tokenizer_config.json beside it"
        )
    template = _chat_template(file.with_name(TEMPLATE_FILE), settings.pop("chat_template", None))
    return Tokenizer(
        backend,
        pad_id=eos_id if ids["pad_token"] is None else ids["pad_token"],
        bos_id=ids["bos_token"],
        eos_id=eos_id,
        chat_template=template,
        settings=settings,
        also_stop=generation.stop_ids,
        generation=generation.defaults,
    )


def _check_stops(file: Path, tokens: Mapping[int, str], generation: Generation) -> None:
    """Raise a one-line `UserError` where a token that ends responses is not in the vocabulary."""
    for i in generation.stop_ids:
        if i not in tokens:
            raise UserError(f"{short_path(file)}: no token {i}, which is an eos_token_id beside it")


def _plain_backend(backend: tokenizers.Tokenizer, special: list[str]) -> tokenizers.Tokenizer:
    """The tokenizer with these special tokens, whose spellings are plain text, without padding."""
    backend = with_special_tokens(backend, special)
    backend.no_padding()
    backend.no_truncation()
    backend.encode_special_tokens = True
    return backend


def _settings(file: Path, tokens: Mapping[int, str], generation: Generation) -> dict[str, Any]:
    """Fields about special tokens from all configuration files beside `tokenizer.json`."""
    by_name = _read_fields(file.with_name("special_tokens_map.json"))
    ids = _read_fields(file.with_name("config.json"))
    by_id = {key: ids.get(f"{key}_id") for key in SPECIAL_FIELDS}
    by_id["eos_token"] = next(iter(generation.stop_ids), None)
    fields = {key: tokens[i] for key, i in by_id.items() if type(i) is int and i in tokens}
    fields |= {key: value for key, value in by_name.items() if key in SPECIAL_FIELDS}
    config = file.with_name("tokenizer_config.json")
    if not exists(config) and not fields:
        return dict(zip(SPECIAL_FIELDS, (PAD, BOS, EOS), strict=True))
    return fields | _read_fields(config)


def _read_fields(file: Path) -> dict[str, Any]:
    """Fields of a configuration file, their types checked; none where there is no file."""
    content = read_json(file) if exists(file) else {}
    if file.name != "config.json":
        as_type(content, SpecialTokenFields, short_path(file))
        try:
            json_text(content).encode()
        except UnicodeEncodeError:
            raise UserError(f"{short_path(file)} holds half a surrogate pair: no Unicode") from None
    return content


def _chat_template(file: Path, field: Any) -> str | None:
    """Chat template in a file of its own, or else in the field `chat_template`."""
    if exists(file):
        try:
            return read_bytes(file).decode()
        except UnicodeDecodeError as error:
            raise UserError(
                f"{short_path(file)}: invalid UTF-8 at byte {error.start + 1}"
            ) from None
    if not isinstance(field, list):
        return field
    templates = {entry["name"]: entry["template"] for entry in field}
    if "default" not in templates:
        raise UserError(
            f"{short_path(file.parent)}: chat templates {quote(sorted(templates))}, but none named "
            "'default'"
        )
    return templates["default"]


def _token_id(backend: tokenizers.Tokenizer, name: str | None, file: Path) -> int | None:
    """Id of a special token by its spelling, which must be in the vocabulary."""
    if name is None:
        return None
    if (token_id := backend.token_to_id(name)) is None:
        raise UserError(
            f"{short_path(file)}: no token {quote(name)}; name one in tokenizer_config.json"
        )
    return token_id
