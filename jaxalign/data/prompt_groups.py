"""Texts packed by their prompts: several responses to one prompt stand behind it, read once."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxalign.batches.tokens import PackedBatch
from jaxalign.data.batching import token_batch
from jaxalign.data.chat import TokenRow, token_row

MOST = 4  # times the longest text, tokens of a group of several
Place = tuple[int, np.ndarray]  # row of a packed batch, and the columns of a text's tokens in it


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptGroup:
    """Texts that share the beginning of their prompt.

    texts: their positions among all texts.
    shared: tokens of the beginning that stand there once.
    size: tokens of the group in a packed row.
    """

    texts: tuple[int, ...]
    shared: int
    size: int


def prompt_groups(rows: Sequence[TokenRow]) -> list[PromptGroup]:
    """Groups of the texts with equal prompts, by the first text of each.

    A group is not much longer than the longest text; texts beyond that make another group.

    All of a prompt but its last token is shared: that stands at the start of every branch, so that
    the token before the first of a response predicts it there too.

    Args:
      rows: N texts, none of them empty.
    """
    most = MOST * max((len(row) for row in rows), default=0)
    groups: list[PromptGroup] = []
    last: dict[bytes, int] = {}  # the group that a text with this prompt may join
    for number, row in enumerate(rows):
        prompt = row.tokens[: _prompt_length(row)]
        shared, name = max(len(prompt) - 1, 0), prompt.tobytes()
        place = last.get(name) if shared else None
        own = len(row) - shared
        if place is None or groups[place].size + own > most:
            last[name] = len(groups)
            groups.append(PromptGroup(texts=(number,), shared=shared, size=len(row)))
        else:
            group = groups[place]
            texts = (*group.texts, number)
            groups[place] = PromptGroup(texts=texts, shared=shared, size=group.size + own)
    return groups


def single_texts(rows: Sequence[TokenRow]) -> list[PromptGroup]:
    """Every text in a group of its own."""
    return [PromptGroup(texts=(i,), shared=0, size=len(row)) for i, row in enumerate(rows)]


def grouped_batch(
    rows: Sequence[TokenRow],
    packed: Sequence[Sequence[PromptGroup]],
    *,
    pad_id: int,
    length: int,
    branches: bool = True,
) -> tuple[PackedBatch, dict[int, Place]]:
    """Packed batch `[B, T]` of groups of texts, and where each of the texts stands in it.

    The outputs for a text's tokens are those of its columns; what predicts a token is right for all
    but the last of a shared prompt, which has two columns.

    Args:
      rows: all texts.
      packed: B rows, the groups of each.
      pad_id: of padding.
      length: T, in which every row fits.
      branches: whether the batch says which branch a token belongs to, as it must where a prompt is
        shared.
    """
    joined: list[TokenRow] = []
    segments: Any = np.zeros((len(packed), length), np.int32)
    owners: Any = np.zeros((len(packed), length), np.int32)
    places: dict[int, Place] = {}
    for b, groups in enumerate(packed):
        parts: list[TokenRow] = []
        at = 0
        for number, group in enumerate(groups):
            segments[b, at:] = number
            owners[b, at:] = 0
            begun, at = np.arange(at, at + group.shared), at + group.shared
            parts.append(_part(rows[group.texts[0]], 0, group.shared))
            for branch, text in enumerate(group.texts, start=1):
                own = _part(rows[text], group.shared, None)
                parts.append(own)
                owners[b, at:] = branch
                places[text] = b, np.concatenate([begun, np.arange(at, at + len(own))])
                at += len(own)
        joined.append(_joined(parts))
    whole = token_batch(joined, pad_id=pad_id, length=length)
    index: Any = np.zeros((len(packed), 1), np.int32)
    batch = PackedBatch(
        tokens=whole.tokens,
        prompt_mask=whole.prompt_mask,
        response_mask=whole.response_mask,
        segments=segments,
        index=index,
        branches=owners if branches else None,
    )
    return batch, places


def _prompt_length(row: TokenRow) -> int:
    """Tokens before the response; all where there is none."""
    return int(np.argmax(row.is_response)) if row.is_response.any() else len(row)


def _joined(parts: Sequence[TokenRow]) -> TokenRow:
    """Parts of a row, one behind the other."""
    if not parts:
        return token_row()
    tokens = np.concatenate([part.tokens for part in parts])
    return TokenRow(tokens, np.concatenate([part.is_response for part in parts]))


def _part(row: TokenRow, start: int, stop: int | None) -> TokenRow:
    return TokenRow(row.tokens[start:stop], row.is_response[start:stop])
