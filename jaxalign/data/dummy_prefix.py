"""The space that some tokenizers put before a text, as SentencePiece's "dummy prefix" does.

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
    """The tokenizer that adds no space before a text and takes none away when it decodes.

    The same object where there is nothing to change.
    """
    written = json.loads(backend.to_str())
    changed = written | {part: _plain(written[part]) for part in PARTS}
    if changed == written:
        return backend
    plain = tokenizers.Tokenizer.from_str(json.dumps(changed))
    plain.encode_special_tokens = backend.encode_special_tokens
    return plain


PARTS = ("normalizer", "pre_tokenizer", "decoder")


def _plain(part: Any) -> Any:
    """A normalizer, pre-tokenizer or decoder, or a sequence of them, without that space."""
    if not isinstance(part, dict):
        return part
    if part["type"] == "Prepend":
        return None
    if part["type"] == "Sequence":
        (name,) = part.keys() - {"type"}  # normalizers, pretokenizers or decoders
        inner = [plain for x in part[name] if (plain := _plain(x)) is not None]
        return {**part, name: inner}
    settings = PLAIN.get(part["type"], {})
    return part | {name: x for name, x in settings.items() if name in part}


def has_prefix(backend: tokenizers.Tokenizer, plain: tokenizers.Tokenizer) -> bool:
    """Whether a text's ids are those of `plain` for the text behind a space."""
    found = [
        (ids_or_none(backend, text), ids_or_none(plain, f" {text}"), ids_or_none(plain, text))
        for text in PROBES
    ]
    same = all(given == spaced for given, spaced, _ in found)
    return same and any(spaced != bare for _, spaced, bare in found)


def check_continues(backend: tokenizers.Tokenizer, where: str) -> None:
    """That a text's ids go on: with a space before the whole text, or with none.

    Args:
      backend: of the tokenizer.
      where: its file, for the message.

    Raises:
      UserError: it puts a space before every word, whether one stands there or not (T5's), so no
        ids are those of "$" and "46" written together.
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
    """Whether text behind a special token begins with that space too, not only a whole text."""
    written = json.loads(backend.to_str())
    kinds = [kind for part in ("normalizer", "pre_tokenizer") for kind in _parts(written[part])]
    return any(
        kind["type"] == "Prepend"
        or kind.get("prepend_scheme") == "always"
        or kind.get("add_prefix_space", False)
        for kind in kinds
    )


def _parts(part: Any) -> list[dict[str, Any]]:
    """A part that does one thing, or those of a sequence."""
    if not isinstance(part, dict):
        return []
    if part["type"] != "Sequence":
        return [part]
    (name,) = part.keys() - {"type"}
    return [inner for x in part[name] for inner in _parts(x)]
