"""Validation of `tokenizer.json` before the `tokenizers` library reads it."""

import contextlib
import dataclasses
import math
import os
import string
import sys
import tempfile
from collections import Counter
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Annotated, Any

import tokenizers
from msgspec import Meta

from jaxalign.errors import UserError
from jaxalign.system.files import as_type, json_of, quote, read_text, short_path

LARGEST_ID = 2**24
GROWTH = 64  # by how much a normalizer or decoder may lengthen a text
PARTS = ("normalizer", "pre_tokenizer", "decoder")
WRITTEN = (0x09, 0x0A, 0x0D, *range(0x20, 0x7F), *range(0x80, 0xC0), *range(0xC2, 0xF1))
# Runs of every character, in which what backtracks without end does it, and what people write.
PROBES = (
    "".join(character * 40 + string.printable for character in string.printable),
    *("a", "Z9", " to be", "to be, or\n\nnot  to be?", "é🎉 日本e\u0301"),
)

TokenId = Annotated[int, Meta(ge=0, lt=LARGEST_ID)]
Text = Annotated[str, Meta(min_length=1, max_length=4096)]
Part = dict[str, Any] | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class _AddedToken:
    """Schema of an added token."""

    id: TokenId
    content: Text
    special: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Model:
    """Schema of the model: vocabulary and what else decides ids."""

    vocab: dict[str, TokenId] | list[tuple[str, float]]
    type: str | None = None
    unk_token: str | None = None
    dropout: Annotated[float, Meta(ge=0, le=0)] | None = None  # a text has one spelling here


@dataclasses.dataclass(frozen=True, kw_only=True)
class _TokenizerFile:
    """Schema of the file."""

    model: _Model
    added_tokens: list[_AddedToken] = dataclasses.field(default_factory=list)
    normalizer: Part = None
    pre_tokenizer: Part = None
    decoder: Part = None


def read_backend(file: Path) -> tokenizers.Tokenizer:
    """Tokenizer of a `tokenizer.json`.

    Raises:
      UserError: it is none, or one that would drop text, make it much longer, or never end.
    """
    text, where = read_text(file), f"{short_path(file)} is not a tokenizer"
    tokenizer_file = as_type(json_of(text, dict[str, Any], short_path(file)), _TokenizerFile, where)
    _check_ids(tokenizer_file, where)
    for part in PARTS:
        _check_growth(getattr(tokenizer_file, part), f"{where}: {part}")
    with _without_stderr(), one_line(where):
        backend = tokenizers.Tokenizer.from_str(text)
    backend.no_padding()
    backend.no_truncation()
    _check_added(backend, tokenizer_file, where)
    _check_bytes(tokenizer_file, where)
    with _without_stderr(), one_line(where):
        _check_probes(backend, where)
    return backend


def _check_probes(backend: tokenizers.Tokenizer, where: str) -> None:
    """Refuse a tokenizer that fails on probe texts, or whose post-processor changes their ids."""
    processor, ids_of_probes = backend.post_processor, []
    for backend.post_processor in (None, processor):
        ids_of_probes.append([ids_or_none(backend, text) for text in PROBES])
    if all(ids == [] for ids in ids_of_probes[0]):
        raise UserError(f"{where}: it makes no tokens of any text")
    if ids_of_probes[0] != ids_of_probes[1]:
        raise UserError(f"{where}: its post-processor adds or drops ids of the text itself")


def ids_or_none(backend: tokenizers.Tokenizer, text: str) -> list[int] | None:
    """Ids of a text; None where the tokenizer lacks a token for it."""
    try:
        return backend.encode(text, add_special_tokens=False).ids
    except Exception:  # the library raises bare Exception; panics are none
        return None


@contextlib.contextmanager
def one_line(where: str) -> Iterator[None]:
    """Context in which errors of the library, Rust's panics included, become one line.

    Raises:
      UserError: says where and what.
    """
    try:
        yield
    except UserError:
        raise
    except BaseException as error:  # a panic is no Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise UserError(f"{where}: {' '.join(str(error).split())[:300]}") from None


@contextlib.contextmanager
def _without_stderr() -> Iterator[None]:
    """Context in which standard error is dropped: a panic writes there before it is raised."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as scratch:
        os.dup2(scratch.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def _check_ids(tokenizer_file: _TokenizerFile, where: str) -> None:
    """Refuse a vocabulary with two equal ids or tokens, or a score that is not finite."""
    vocab = tokenizer_file.model.vocab
    if isinstance(vocab, list):
        scores = [score for _, score in vocab]
        if len({token for token, _ in vocab}) < len(vocab):
            raise UserError(f"{where}: a token stands twice in its vocabulary")
        if not all(map(math.isfinite, scores)):
            raise UserError(f"{where}: a score of its vocabulary is not finite")
    elif len(set(vocab.values())) < len(vocab):
        ((double, _),) = Counter(vocab.values()).most_common(1)
        raise UserError(f"{where}: two tokens have the id {double}")
    added = [token.id for token in tokenizer_file.added_tokens]
    if len(set(added)) < len(added):
        raise UserError(f"{where}: two added tokens have the same id")


def _check_added(backend: tokenizers.Tokenizer, tokenizer_file: _TokenizerFile, where: str) -> None:
    """Refuse added tokens that the library would number anew."""
    for token in tokenizer_file.added_tokens:
        if (token_id := backend.token_to_id(token.content)) != token.id:
            raise UserError(
                f"{where}: the added token {quote(token.content)} has id {token.id}, "
                f"but would be read as {token_id}"
            )


def _check_bytes(tokenizer_file: _TokenizerFile, where: str) -> None:
    """Refuse a byte-level vocabulary that cannot spell what people write.

    Published ones lack bytes that no text in UTF-8 has, control characters, and the first bytes of
    planes that are not assigned; those are not asked for.
    """
    kinds = [kind["type"] for part in PARTS[:2] for kind in _kinds(getattr(tokenizer_file, part))]
    spelled = "ByteLevel" in kinds and tokenizer_file.model.type in (None, "BPE")
    if spelled and (lost := sorted(lost_bytes(tokenizer_file.model.vocab).intersection(WRITTEN))):
        raise UserError(f"{where}: byte-level, but the byte 0x{lost[0]:02X} is no token")


def lost_bytes(vocab: Container[str]) -> frozenset[int]:
    """Bytes that a byte-level vocabulary cannot spell and would leave out."""
    return frozenset(byte for byte in range(256) if _letter(byte) not in vocab)


def _letter(byte: int) -> str:
    """Character for a byte in byte-level vocabularies: itself where it is visible."""
    seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [x for x in range(256) if x not in seen]
    return chr(byte) if byte in seen else chr(256 + hidden.index(byte))


def _check_growth(part: Part, where: str) -> None:
    """Refuse a normalizer or decoder whose replacements may make a text `GROWTH` times as long."""
    growth = 1.0
    for kind in _kinds(part):
        if kind["type"] == "Replace":
            pattern, content = kind.get("pattern"), kind.get("content")
            sought = pattern.get("String") if isinstance(pattern, dict) else pattern
            least = len(sought) if isinstance(sought, str) else 1  # a regex finds one or more
            if least and isinstance(content, str):
                growth *= max(1.0, len(content) / least)
            else:
                growth = math.inf
        if len(str(kind.get("prepend", ""))) > GROWTH:
            growth = math.inf
        if growth > GROWTH:
            raise UserError(f"{where} makes texts more than {GROWTH} times as long")


def _kinds(part: Part) -> Iterator[dict[str, Any]]:
    """All objects with a `type` within a part of the file."""
    stack: list[Any] = [part]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            if isinstance(value.get("type"), str):
                yield value
            stack += value.values()
        elif isinstance(value, list):
            stack += value
