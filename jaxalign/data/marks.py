"""Marks: secret strings that tell a template's special tokens from the same letters in contents.

A template's "<|im_end|>" is written as a mark before it is tokenized, and the tokenizer that reads
the marked text knows special tokens by their marks alone. Everything else about it is as in the
original (which white space a token swallows, what is put before a first word), so the ids of a
whole conversation are those that the original gives.
"""

import dataclasses
import functools
import itertools
import json
import re
import secrets
from collections.abc import Mapping, Sequence

import tokenizers

from jaxalign.data.dummy_prefix import without_prefix

# Drawn anew in every process, so no text can hold it; of characters that have no case and no other
# normal form. No id depends on it.
SECRET = f"\U000fe000{secrets.randbelow(10**18):018d}"
MARK = re.compile(SECRET + r"\.(\d)\.(\d+);")
OPEN, CLOSE, LITERAL, LITERAL_END, GENERATION, GENERATION_END, TOKEN = range(7)


def mark(kind: int, number: int = 0) -> str:
    """Mark of one kind (a constant of this file) with the number of a message or a token id."""
    return f"{SECRET}.{kind}.{number};"


def without_marks(text: str) -> str:
    """The text without its marks."""
    return MARK.sub("", text)


def pattern_of(spellings: Sequence[str]) -> re.Pattern[str]:
    """Regular expression that matches the longest of the spellings."""
    longest_first = sorted(spellings, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")


@dataclasses.dataclass(frozen=True)
class MarkedTokenizer:
    """A tokenizer of texts in which marks stand for special tokens; their spellings are text.

    backend: the original with marks for the spellings of its special tokens.
    plain: the backend without the dummy prefix.
    specials: spelling to id of the original's special tokens.
    ids: the backend's ids of added tokens to the original's.
    """

    backend: tokenizers.Tokenizer
    plain: tokenizers.Tokenizer
    specials: Mapping[str, int]
    ids: Mapping[int, int]

    @functools.cached_property
    def pattern(self) -> re.Pattern[str]:
        """Regular expression of the spellings of special tokens."""
        return pattern_of(list(self.specials))

    def marked(self, text: str) -> str:
        """The text with a mark for every special token that is spelled out in it."""
        return self.pattern.sub(lambda match: mark(TOKEN, self.specials[match[0]]), text)

    def encode(self, text: str) -> list[int]:
        """Ids of a marked text, as the original tokenizer numbers them."""
        return self._encoded(text)[0]

    def split(self, text: str, cuts: Sequence[int]) -> list[list[int]]:
        """Ids of a marked text in pieces, cut at these positions.

        They are the ids of the whole text if what is before each cut has the same ids alone: then
        nothing was merged across. Otherwise the pieces are tokenized apart.
        """
        ids, starts = self._encoded(text)
        counts = [sum(start < cut for start in starts) for cut in cuts]
        edges = [0, *cuts, len(text)]
        if any(ids[:n] != self.encode(text[:cut]) for n, cut in zip(counts, cuts, strict=True)):
            return [self._piece(text, *ends) for ends in itertools.pairwise(edges)]
        edges = [0, *counts, len(ids)]
        return [ids[start:end] for start, end in itertools.pairwise(edges)]

    def _piece(self, text: str, start: int, end: int) -> list[int]:
        """Ids of a part of a marked text, as they are behind the text before it.

        Behind a special token a text may have a dummy prefix, behind a text not.
        """
        before = [match for match in MARK.finditer(text, 0, start) if match.end() == start]
        if not start or before:
            special = before[-1][0] if before else ""
            return self.encode(special + text[start:end])[len(before) :]
        mark_behind = MARK.search(text, start, end)
        edge = mark_behind.start() if mark_behind else end
        continuation = self.plain.encode(text[start:edge], add_special_tokens=False).ids
        return [self.ids.get(i, i) for i in continuation] + self.encode(text[edge:end])

    def _encoded(self, text: str) -> tuple[list[int], list[int]]:
        """Ids of a marked text and the position where each begins."""
        encoding = self.backend.encode(text, add_special_tokens=False)
        ids = [self.ids.get(i, i) for i in encoding.ids]
        return ids, [start for start, _ in encoding.offsets]


def marked_tokenizer(backend: tokenizers.Tokenizer) -> MarkedTokenizer:
    """Tokenizer of marked texts with the ids of `backend`."""
    specials = special_tokens(backend)
    serialised = json.loads(backend.to_str())
    real = {}  # what the new backend calls an added token: its id in the original
    for token in serialised["added_tokens"]:
        spelled, number = token["content"], token["id"]
        token["content"] = mark(TOKEN, number) if spelled in specials else spelled
        real[token["content"]] = number
    marked = tokenizers.Tokenizer.from_str(json.dumps(serialised))
    added = marked.get_added_tokens_decoder()
    ids = {i: real[token.content] for i, token in added.items()}
    return MarkedTokenizer(marked, without_prefix(marked), specials, ids)


def special_tokens(backend: tokenizers.Tokenizer) -> dict[str, int]:
    """Spelling to id of the special tokens."""
    added = backend.get_added_tokens_decoder()
    return {token.content: i for i, token in added.items() if token.special}


def with_special_tokens(
    backend: tokenizers.Tokenizer, names: Sequence[str]
) -> tokenizers.Tokenizer:
    """The tokenizer with these of its tokens made special.

    Some `tokenizer.json` files (Gemma 2's) list <start_of_turn> as a plain added token and only
    `tokenizer_config.json` says that it is special.
    """
    added = {token.content: token for token in backend.get_added_tokens_decoder().values()}
    if any(name in added and not added[name].special for name in names):
        serialised = json.loads(backend.to_str())
        for token in serialised["added_tokens"]:
            token["special"] = token["special"] or token["content"] in names
        backend = tokenizers.Tokenizer.from_str(json.dumps(serialised))
    in_vocabulary = [
        name for name in names if name not in added and backend.token_to_id(name) is not None
    ]
    backend.add_special_tokens(in_vocabulary)
    return backend


def with_ids_below(backend: tokenizers.Tokenizer, size: int) -> tokenizers.Tokenizer:
    """The tokenizer without the special tokens of ids from `size` on, whose spellings are text."""
    serialised = json.loads(backend.to_str())
    serialised["added_tokens"] = [
        token for token in serialised["added_tokens"] if token["id"] < size or not token["special"]
    ]
    return tokenizers.Tokenizer.from_str(json.dumps(serialised))
