"""Comparison of two tokenizers: whether every text has the same ids, by their serialisation."""

import json
from typing import Any

from jaxalign.data.marks import special_tokens
from jaxalign.data.tokenizer import Tokenizer
from jaxalign.system.files import quote

# Of a tokenizer's JSON, what has no say in which ids a text becomes here. Which added tokens are
# special, that is never text, is a matter of the one that reads.
WITHOUT_EFFECT = ("version", "truncation", "padding", "post_processor", "decoder", "added_tokens")
IDS = {"bos_id": "BOS", "eos_id": "EOS"}


def difference(one: Tokenizer, other: Tokenizer) -> str:
    """Description of the first setting in which two tokenizers differ; empty: same ids always."""
    special = {x for tokenizer in (one, other) for x in special_tokens(tokenizer.backend)}
    one_part, other_part = (_parts(tokenizer, special) for tokenizer in (one, other))
    for name, value in one_part.items():
        if value != other_part[name]:
            if isinstance(value, dict) and isinstance(other_part[name], dict):
                return f"{name}: {_first_difference(value, other_part[name])}"
            if name == "merges":
                return name
            return f"{name}: {quote(value)} and {quote(other_part[name])}"
    return ""


def _parts(tokenizer: Tokenizer, special: set[str]) -> dict[str, Any]:
    """Settings of a tokenizer that decide which ids a text has."""
    serialised = json.loads(tokenizer.backend.to_str())
    model = serialised.pop("model")
    vocab = model.pop("vocab")
    if isinstance(vocab, list):  # a unigram model's: the scores decide how a text is cut
        model["scores"], vocab = [score for _, score in vocab], [token for token, _ in vocab]
        vocab = dict(zip(vocab, range(len(vocab)), strict=True))
    added = {token["content"]: token for token in serialised["added_tokens"]}
    flags = ("lstrip", "rstrip", "single_word", "normalized")
    parts = {
        "tokens": vocab | {name: token["id"] for name, token in added.items()},
        "added tokens": {
            name: [token[flag] for flag in flags]
            for name, token in added.items()
            if name not in special
        },
        "merges": model.pop("merges", None),
        **{name: value for name, value in serialised.items() if name not in WITHOUT_EFFECT},
        "model": model,
    }
    return parts | {name: getattr(tokenizer, key) for key, name in IDS.items()}


def _first_difference(one_part: dict[str, Any], other_part: dict[str, Any]) -> str:
    """Description of the first entry in which two objects differ."""
    name = next(
        name for name in [*one_part, *other_part] if one_part.get(name) != other_part.get(name)
    )
    values = " and ".join(quote(x[name]) if name in x else "none" for x in (one_part, other_part))
    return f"{quote(name)} is {values}"
