"""`tokenizer.json`, checked before the `tokenizers` library trusts it; its errors as one line."""

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
from jaxalign.system.files import json_of, read_text, shown, shown_path, typed

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
class _Added:
    id: TokenId
    content: Text
    special: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Model:
    vocab: dict[str, TokenId] | list[tuple[str, float]]
    type: str | None = None
    unk_token: str | None = None
    dropout: Annotated[float, Meta(ge=0, le=0)] | None = None  # a text has one spelling here


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Written:
    model: _Model
    added_tokens: list[_Added] = dataclasses.field(default_factory=list)
    normalizer: Part = None
    pre_tokenizer: Part = None
    decoder: Part = None


def read_backend(file: Path) -> tokenizers.Tokenizer:
    """The tokenizer of a file.

    Raises:
      UserError: it is none, or one that would lose text, blow it up, or not come to an end.
    """
    text, where = read_text(file), f"{shown_path(file)} is not a tokenizer"
    written = typed(json_of(text, dict[str, Any], shown_path(file)), _Written, where)
    _check_ids(written, where)
    for part in PARTS:
        _check_growth(getattr(written, part), f"{where}: {part}")
    with _quiet(), one_line(where):
        backend = tokenizers.Tokenizer.from_str(text)
    backend.no_padding()
    backend.no_truncation()
    _check_added(backend, written, where)
    _check_bytes(written, where)
    with _quiet(), one_line(where):
        _check_probes(backend, where)
    return backend


def _check_probes(backend: tokenizers.Tokenizer, where: str) -> None:
    """What cannot read such texts panics here; what is put around a text is not part of it."""
    processor, found = backend.post_processor, []
    for backend.post_processor in (None, processor):
        found.append([ids_or_none(backend, text) for text in PROBES])
    if all(ids == [] for ids in found[0]):
        raise UserError(f"{where}: it makes no tokens of any text")
    if found[0] != found[1]:
        raise UserError(f"{where}: its post-processor adds or drops ids of the text itself")


def ids_or_none(backend: tokenizers.Tokenizer, text: str) -> list[int] | None:
    """The ids of a text; None where a tokenizer refuses it for want of a token."""
    try:
        return backend.encode(text, add_special_tokens=False).ids
    except Exception:  # the library raises bare Exception; panics are none
        return None


@contextlib.contextmanager
def one_line(where: str) -> Iterator[None]:
    """Turns what the library raises, Rust's panics among it, into one line.

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
def _quiet() -> Iterator[None]:
    """Keeps the lines of a panic off the terminal: they are written before anything is raised."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _check_ids(written: _Written, where: str) -> None:
    vocab = written.model.vocab
    if isinstance(vocab, list):
        scores = [score for _, score in vocab]
        if len({token for token, _ in vocab}) < len(vocab):
            raise UserError(f"{where}: a token stands twice in its vocabulary")
        if not all(map(math.isfinite, scores)):
            raise UserError(f"{where}: a score of its vocabulary is not finite")
    elif len(set(vocab.values())) < len(vocab):
        ((double, _),) = Counter(vocab.values()).most_common(1)
        raise UserError(f"{where}: two tokens have the id {double}")
    added = [token.id for token in written.added_tokens]
    if len(set(added)) < len(added):
        raise UserError(f"{where}: two added tokens have the same id")


def _check_added(backend: tokenizers.Tokenizer, written: _Written, where: str) -> None:
    """The library numbers added tokens anew where theirs do not go on from the vocabulary."""
    for token in written.added_tokens:
        if (found := backend.token_to_id(token.content)) != token.id:
            raise UserError(
                f"{where}: the added token {shown(token.content)} has id {token.id}, "
                f"but would be read as {found}"
            )


def _check_bytes(written: _Written, where: str) -> None:
    """A byte-level vocabulary must spell what people write.

    Published ones lack bytes that no text in UTF-8 has, control characters, and the first bytes of
    planes that are not assigned; those are not asked for.
    """
    kinds = [kind["type"] for part in PARTS[:2] for kind in _kinds(getattr(written, part))]
    spelled = "ByteLevel" in kinds and written.model.type in (None, "BPE")
    if spelled and (lost := sorted(lost_bytes(written.model.vocab).intersection(WRITTEN))):
        raise UserError(f"{where}: byte-level, but the byte 0x{lost[0]:02X} is no token")


def lost_bytes(vocab: Container[str]) -> frozenset[int]:
    """The bytes that a byte-level vocabulary cannot spell: it would leave them out."""
    return frozenset(byte for byte in range(256) if _letter(byte) not in vocab)


def _letter(byte: int) -> str:
    """What stands for a byte in byte-level vocabularies: itself where it can be seen."""
    seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [x for x in range(256) if x not in seen]
    return chr(byte) if byte in seen else chr(256 + hidden.index(byte))


def _check_growth(part: Part, where: str) -> None:
    """Replacements one after another may double a text, and again, and again."""
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
    """A part and all parts in it that say what they are."""
    left: list[Any] = [part]
    while left:
        found = left.pop()
        if isinstance(found, dict):
            if isinstance(found.get("type"), str):
                yield found
            left += found.values()
        elif isinstance(found, list):
            left += found
