"""Padded batches of token sequences, as NumPy arrays.

Nothing is cut silently: a sequence longer than the batch is an error. `truncated_row` cuts on
purpose, the EOS included: a text that is cut does not teach that texts end there.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from jaxalign.batches.tokens import TokenBatch
from jaxalign.data.chat import TokenIds, TokenRow
from jaxalign.errors import UserError


def truncated_row(row: TokenRow, max_length: int) -> TokenRow:
    """The first `max_length` tokens of a sequence; of a longer one the EOS is lost, on purpose."""
    return TokenRow(row.tokens[:max_length], row.is_response[:max_length])


def token_batch(
    rows: Sequence[TokenRow],
    *,
    pad_id: int,
    length: int | None = None,
    index: Sequence[int] | np.ndarray | None = None,
    padding: Literal["left", "right"] = "right",
) -> TokenBatch:
    """Batch `[B, T]` of token sequences, padded to one length.

    Args:
      rows: B sequences.
      pad_id: of padding.
      length: T; the longest row by default.
      index: `[B]` global example indices (noise is derived from them); 0, 1, 2 ... by default.
      padding: "right" for training, "left" for prompts that sampling continues.

    Raises:
      UserError: a row is longer than `length`.
    """
    longest = max((len(row) for row in rows), default=0)
    length = longest if length is None else length
    if longest > length:
        raise UserError(f"a sequence of {longest} tokens does not fit length {length}: truncate it")
    tokens = np.full((len(rows), length), pad_id, np.int32)
    prompt_mask, response_mask = np.zeros((2, len(rows), length), bool)
    for b, row in enumerate(rows):
        where = slice(length - len(row), length) if padding == "left" else slice(len(row))
        tokens[b, where] = row.tokens
        prompt_mask[b, where] = ~row.is_response
        response_mask[b, where] = row.is_response
    indices = np.arange(len(rows)) if index is None else np.asarray(index)
    return _token_batch(tokens, prompt_mask, response_mask, indices.astype(np.int32))


def _token_batch(
    tokens: np.ndarray, prompt_mask: np.ndarray, response_mask: np.ndarray, index: np.ndarray
) -> TokenBatch:
    """Batch that holds NumPy arrays, though its fields are declared as jax arrays."""
    arrays: list[Any] = [tokens, prompt_mask, response_mask, index]
    return TokenBatch(
        tokens=arrays[0], prompt_mask=arrays[1], response_mask=arrays[2], index=arrays[3]
    )


def prompt_batch(
    prompts: Sequence[TokenIds],
    *,
    pad_id: int,
    length: int | None = None,
    index: Sequence[int] | np.ndarray | None = None,
) -> TokenBatch:
    """Batch `[B, T]` of left-padded prompts (`prompt_ids`) that sampling continues."""
    arrays = [np.asarray(ids, np.int32) for ids in prompts]
    rows = [TokenRow(ids, np.zeros(len(ids), bool)) for ids in arrays]
    return token_batch(rows, pad_id=pad_id, length=length, index=index, padding="left")


def prompt_columns(length: int, most: int) -> int:
    """Padded length of prompts: the next of 8, 16, 24, 32, 48, 64, 96, ..., but at most `most`.

    So prompts of many lengths need few compilations.

    >>> [prompt_columns(length, 100) for length in (1, 9, 25, 33, 65, 97)]
    [8, 16, 32, 48, 96, 100]
    """
    columns = 8
    while columns < length:
        columns += max(8, 1 << (columns.bit_length() - 2))  # half of the power of two below
    return min(columns, most)
