"""Batches of preferences: pairs, labelled responses, compared groups, rankings, labelled steps."""

import collections
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxalign.batches.preferences import (
    ComparisonBatch,
    PreferenceBatch,
    RankingBatch,
    SharedPreferenceBatch,
    StepBatch,
    UnpairedBatch,
)
from jaxalign.batches.tokens import TokenBatch
from jaxalign.data.batching import token_batch, truncated_row
from jaxalign.data.chat import TokenRow, token_row
from jaxalign.data.shared_prompts import shared_prompts
from jaxalign.errors import UserError


def preference_batch(
    chosen: Sequence[TokenRow],
    rejected: Sequence[TokenRow],
    *,
    pad_id: int,
    length: int | None = None,
    index: Sequence[int] | np.ndarray | None = None,
    gold: Sequence[TokenRow] | None = None,
) -> PreferenceBatch:
    """Batch of pairs (or triples with `gold`), every side `[B, T]` of one length.

    Reference log-probabilities are left out.
    """
    longest = max((len(row) for row in [*chosen, *rejected, *(gold or ())]), default=0)
    sides: list[Any] = [
        None
        if rows is None
        else token_batch(rows, pad_id=pad_id, length=length or longest, index=index)
        for rows in (chosen, rejected, gold)
    ]
    weights: Any = np.ones(len(chosen), np.float32)
    return PreferenceBatch(
        chosen=sides[0], rejected=sides[1], gold=sides[2], reference=None, weights=weights
    )


def shared_preference_batch(
    pairs: Sequence[tuple[TokenRow, ...]], *, pad_id: int, lengths: tuple[int, int], index: Any
) -> SharedPreferenceBatch:
    """Batch of pairs (or triples) with shared prompts, without reference log-probabilities.

    Args:
      pairs: the chosen and the rejected row, and perhaps the gold one behind them.
      pad_id, lengths, index: as in `shared_prompts`.
    """
    weights: Any = np.ones(len(pairs), np.float32)
    rows = shared_prompts(pairs, pad_id=pad_id, lengths=lengths, index=index)
    return SharedPreferenceBatch(sides=rows, reference=None, weights=weights)


def unpaired_batch(
    rows: Sequence[TokenRow],
    labels: Any,
    reference: Any,
    *,
    pad_id: int,
    length: int | None = None,
    index: Sequence[int] | np.ndarray | None = None,
    mismatched: Sequence[TokenRow] | None = None,
    mismatched_reference: Any = None,
) -> UnpairedBatch:
    """Batch `[B, T]` of labelled responses, perhaps with mismatched ones for a KL estimate.

    Args:
      labels: `[B]` bool.
      reference, mismatched_reference: `[B]` nats under the reference policy.
    """

    def batch(sequences: Sequence[TokenRow]) -> TokenBatch:
        return token_batch(sequences, pad_id=pad_id, length=length, index=index)

    weights: Any = np.ones(len(rows), np.float32)
    return UnpairedBatch(
        responses=batch(rows),
        labels=labels,
        reference=reference,
        weights=weights,
        mismatched=None if mismatched is None else batch(mismatched),
        mismatched_reference=mismatched_reference,
    )


def mismatched_rows(rows: Sequence[TokenRow], *, max_length: int) -> list[TokenRow]:
    """Mismatched rows: every prompt with a response to another prompt, where there is one.

    The pairing belongs to the data set and not to a batch, so that the reference's
    log-probabilities of its rows are computed once; no batch of whatever size pairs a prompt with
    its own response. Rows are ordered by prompt and responses move on by the size of the largest
    group: then no response stays with its prompt, unless that prompt has more than half of the
    rows. A row of more than `max_length` tokens loses its end.

    Raises:
      UserError: there is only one row.
    """
    if len(rows) < 2:
        raise UserError("one row has no other row whose response it could be paired with")
    starts = [int(np.argmax(row.is_response)) for row in rows]
    prompts = [row.tokens[:start].tobytes() for row, start in zip(rows, starts, strict=True)]
    order = sorted(range(len(rows)), key=lambda i: (prompts[i], i))
    largest = max(collections.Counter(prompts).values())
    moved = np.roll(order, largest if largest <= len(rows) // 2 else 1)
    result: list[TokenRow] = [rows[0]] * len(rows)
    for i, j in zip(order, moved, strict=True):
        tokens = np.concatenate([rows[i].tokens[: starts[i]], rows[j].tokens[starts[j] :]])
        response = np.concatenate(
            [rows[i].is_response[: starts[i]], rows[j].is_response[starts[j] :]]
        )
        result[i] = truncated_row(TokenRow(tokens, response), max_length)
    return result


def comparison_batch(
    groups: Sequence[Sequence[TokenRow]],
    preferences: np.ndarray,
    *,
    pad_id: int,
    length: int | None = None,
    margins: np.ndarray | None = None,
    index: np.ndarray | None = None,
) -> ComparisonBatch:
    """Batch `[G, K, T]` of groups of K texts with the preferences between all of them.

    Args:
      preferences, margins: `[G, K, K]`, share of people in [0, 1] who prefer text i to text j, and
        margin of their scores; margins are 0 by default.
      index: `[G, K]`; counted through by default.
    """
    shape = preferences.shape[:2]
    if [len(group) for group in groups] != [shape[1]] * shape[0]:
        raise UserError(f"preferences {preferences.shape} do not fit groups of the given sizes")
    rows = [row for group in groups for row in group]
    indices = None if index is None else index.reshape(-1)
    flat = token_batch(rows, pad_id=pad_id, length=length, index=indices)
    texts = jax.tree.map(lambda array: array.reshape(*shape, *array.shape[1:]), flat)
    zeros = np.zeros(preferences.shape, np.float32)
    arrays: list[Any] = [
        preferences.astype(np.float32),
        zeros if margins is None else margins.astype(np.float32),
    ]
    return ComparisonBatch(texts=texts, preferences=arrays[0], margins=arrays[1])


def ranking_batch(
    rankings: Sequence[Sequence[TokenRow]],
    *,
    pad_id: int,
    size: int | None = None,
    length: int | None = None,
    index: np.ndarray | None = None,
) -> RankingBatch:
    """Batch `[B, K, T]` of rankings of up to K texts, the best first.

    Args:
      size: K; the largest ranking by default.
      index: `[B, K]`, anything where there is no text; counted through by default.

    Raises:
      UserError: a ranking has more than `size` texts.
    """
    largest = max((len(ranking) for ranking in rankings), default=0)
    size = largest if size is None else size
    if largest > size:
        raise UserError(f"a ranking of {largest} texts does not fit size {size}")
    shape, empty_row = (len(rankings), size), token_row()
    rows = [row for r in rankings for row in [*r, *[empty_row] * (size - len(r))]]
    indices = None if index is None else index.reshape(-1)
    flat = token_batch(rows, pad_id=pad_id, length=length, index=indices)
    texts = jax.tree.map(lambda array: array.reshape(*shape, *array.shape[1:]), flat)
    mask: Any = np.arange(size) < np.array([len(r) for r in rankings], int)[:, None]
    return RankingBatch(texts=texts, mask=mask)


def step_batch(
    rows: Sequence[TokenRow],
    labels: Sequence[np.ndarray],
    *,
    pad_id: int,
    length: int | None = None,
    index: Sequence[int] | np.ndarray | None = None,
) -> StepBatch:
    """Batch `[B, T]` of solutions (`step_row`) with a label in [0, 1] for every step."""
    texts: Any = token_batch(rows, pad_id=pad_id, length=length, index=index)
    placed: Any = np.zeros(texts.tokens.shape, np.float32)
    placed[texts.response_mask] = np.concatenate(labels)  # row by row, in the order of the steps
    return StepBatch(texts=texts, labels=placed)
