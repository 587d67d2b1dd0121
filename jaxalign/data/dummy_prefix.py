"""Dummy prefix: the space that SentencePiece and other tokenizers put before a text.

They read "Hello" as "▁Hello", so that a word is the same token at the beginning and inside, and
their decoders take that space away again. It belongs to where a text begins: what goes on from
another text has none, and its own first space is a real one.
"""

import json
from typing import Any

import tokenizers

from jaxalign.data.tokenizer_json import ids_or_none
from jaxalign.errors import UserError

PROBES = ("a", "Z9", "to be")
# What of which part of a tokenizer adds or takes away a space at an edge of a text.
PLAIN = {
    "Metaspace": {"prepend_scheme": "never"},
    "ByteLevel": {"add_prefix_space": False},
    "Strip": {"strip_left": False, "start": 0},
}


def without_prefix(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """The tokenizer without the dummy prefix, neither added in encoding nor removed in decoding.

    The same object where there is nothing to change.
    """
    serialised = json.loads(backend.to_str())
    changed = serialised | {part: _part_without_prefix(serialised[part]) for part in PARTS}
    if changed == serialised:
        return backend
    plain = tokenizers.Tokenizer.from_str(json.dumps(changed))
    plain.encode_special_tokens = backend.encode_special_tokens
    return plain


PARTS = ("normalizer", "pre_tokenizer", "decoder")


def _part_without_prefix(part: Any) -> Any:
    """A normalizer, pre-tokenizer or decoder, or a sequence of them, without the dummy prefix."""
    if not isinstance(part, dict):
        return part
    if part["type"] == "Prepend":
        return None
    if part["type"] == "Sequence":
        (name,) = part.keys() - {"type"}  # normalizers, pretokenizers or decoders
        inner = [plain for x in part[name] if (plain := _part_without_prefix(x)) is not None]
        return {**part, name: inner}
    settings = PLAIN.get(part["type"], {})
    return part | {name: x for name, x in settings.items() if name in part}


def has_prefix(backend: tokenizers.Tokenizer, plain: tokenizers.Tokenizer) -> bool:
    """Whether `backend` encodes a text as `plain` encodes it behind a space."""
    ids = [
        (ids_or_none(backend, text), ids_or_none(plain, f" {text}"), ids_or_none(plain, text))
        for text in PROBES
    ]
    same = all(own == spaced for own, spaced, _ in ids)
    return same and any(spaced != bare for _, spaced, bare in ids)


def check_continues(backend: tokenizers.Tokenizer, where: str) -> None:
    """Refuse a tokenizer that puts a space before every word and not only before a whole text.

    Args:
      backend: of the tokenizer.
      where: its file, for the message.

    Raises:
      UserError: it does (T5's), so no ids are those of "$" and "46" written together.
    """
    plain = without_prefix(backend)
    if plain is backend or has_prefix(backend, plain):
        return
    if any(ids_or_none(backend, text) != ids_or_none(plain, text) for text in PROBES):
        raise UserError(
            f"{where}: it puts a space before words inside a text too, so an answer cannot go on "
            "from a prompt without one; use a model with another tokenizer"
        )


def has_prefix_behind_specials(backend: tokenizers.Tokenizer) -> bool:
    """Whether text behind a special token has the dummy prefix too, not only a whole text."""
    serialised = json.loads(backend.to_str())
    kinds = [
        kind for part in ("normalizer", "pre_tokenizer") for kind in _flat_parts(serialised[part])
    ]
    return any(
        kind["type"] == "Prepend"
        or kind.get("prepend_scheme") == "always"
        or kind.get("add_prefix_space", False)
        for kind in kinds
    )


def _flat_parts(part: Any) -> list[dict[str, Any]]:
    """The parts of a normalizer or pre-tokenizer, those of nested sequences included."""
    if not isinstance(part, dict):
        return []
    if part["type"] != "Sequence":
        return [part]
    (name,) = part.keys() - {"type"}
    return [inner for x in part[name] for inner in _flat_parts(x)]
