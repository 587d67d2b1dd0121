"""Batches of NumPy arrays from token sequences, and the examples of each training step.

The examples of a batch are a pure function of the step.

Nothing is cut silently: a sequence longer than the batch is an error. `truncated_row` cuts on
purpose, the EOS included: a text that is cut does not teach that texts end there.
"""

import collections
import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, Literal

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
from jaxalign.batches.tokens import SharedPrompts, TokenBatch
from jaxalign.data.chat import TokenIds, TokenRow, token_row
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


def shared_lengths(groups: Sequence[Sequence[TokenRow]]) -> tuple[int, int]:
    """Padded lengths `(P, R)` of shared prefixes and of continuations, for groups of K rows.

    P + K R is least; a prefix of more than P tokens continues in the columns of the continuations.
    """
    shared = np.array([shared_prefix(group) for group in groups])
    longest = np.array([max(map(len, group)) for group in groups])
    count = max(map(len, groups))
    # at least one column: the first token of a response is predicted from the last of them
    candidates = np.unique(np.maximum(shared, 1))[::-1]  # of equals, the one with fewest logits
    continuations = [int((longest - np.minimum(shared, p)).max()) for p in candidates]
    best = int(np.argmin(candidates + count * np.array(continuations)))
    return int(candidates[best]), continuations[best]


def shared_prefix(rows: Sequence[TokenRow]) -> int:
    """Number of tokens that all rows begin with and none of them is trained on."""
    length = min(int(np.argmax(row.is_response)) if row.is_response.any() else len(row)
                 for row in rows)  # fmt: skip
    first = rows[0].tokens[:length]
    same = np.all([row.tokens[:length] == first for row in rows], axis=0)
    return length if same.all() else int(np.argmin(same))


def shared_prompts(
    groups: Sequence[Sequence[TokenRow]],
    *,
    pad_id: int,
    lengths: tuple[int, int] | None = None,
    index: Sequence[int] | np.ndarray | None = None,
) -> SharedPrompts:
    """Batch of groups of K rows, each as one left-padded shared prefix and K continuations.

    Args:
      groups: B groups.
      pad_id: of padding.
      lengths: `(P, R)`, see `shared_lengths`; of these groups by default.
      index: `[B]` global example indices; 0, 1, 2 ... by default.

    Raises:
      UserError: a group has another size, or a continuation is longer than R.
    """
    prompt_length, continuation_length = shared_lengths(groups) if lengths is None else lengths
    if len({len(group) for group in groups}) > 1:
        raise UserError("all groups must have the same number of rows")
    cuts = [min(shared_prefix(group), prompt_length) for group in groups]
    prefixes = [TokenRow(g[0].tokens[:cut], np.zeros(cut, bool))
             for g, cut in zip(groups, cuts, strict=True)]  # fmt: skip
    continuations = [TokenRow(row.tokens[cut:], row.is_response[cut:])
                     for g, cut in zip(groups, cuts, strict=True) for row in g]  # fmt: skip
    prompts = token_batch(
        prefixes, pad_id=pad_id, length=prompt_length, index=index, padding="left"
    )
    flat = token_batch(continuations, pad_id=pad_id, length=continuation_length)
    shape = (len(groups), -1, continuation_length)
    return SharedPrompts(
        prompts=prompts.tokens,
        prompt_mask=prompts.mask,
        responses=flat.tokens.reshape(shape),
        mask=flat.mask.reshape(shape),
        response_mask=flat.response_mask.reshape(shape),
        index=prompts.index,
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


def epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    """Permutation of `range(n)` for one epoch, a pure function of its arguments."""
    return np.random.default_rng([seed, epoch]).permutation(n)


def batch_indices(step: int, n: int, batch_size: int, seed: int) -> np.ndarray:
    """Example indices `[batch_size]` of one training step.

    The epochs' permutations, one behind the other, are dealt out in batches: every example is used
    once an epoch, none is dropped, and a batch may end one epoch and begin the next.
    """
    if n == 0:
        raise UserError("there are no examples to draw batches from")
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs = range(positions[0] // n, positions[-1] // n + 1)
    orders = np.stack([epoch_order(n, seed, epoch) for epoch in epochs])
    return orders[positions // n - epochs[0], positions % n]


def evaluation_batches(n: int, batch_size: int) -> list[np.ndarray]:
    """Example indices in order, in batches; the last may be smaller (`pad_rows`)."""
    return [np.arange(start, min(start + batch_size, n)) for start in range(0, n, batch_size)]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LengthBuckets:
    """Schedule of batches of texts of similar length, so that little of a batch is padding.

    Every example is used once an epoch; batches of all buckets come in random order. A batch of
    short texts has more rows, so that all batches have about as many tokens; the last batch of a
    bucket may have fewer rows than the others (`pad_rows`). Few buckets mean few compilations.

    lengths: `[N]` tokens of each example.
    limits: longest length of each bucket, ascending.
    rows: rows of a batch in each bucket.
    seed: of the orders.
    """

    lengths: np.ndarray
    limits: tuple[int, ...]
    rows: tuple[int, ...]
    seed: int

    def batch(self, step: int) -> tuple[np.ndarray, int, int]:
        """Example indices of one training step, and length and number of rows of its batch."""
        epoch, batch = divmod(step, self.batches)
        bucket, examples = self._batches(epoch)[batch]
        return examples, self.limits[bucket], self.rows[bucket]

    @property
    def batches(self) -> int:
        """Number of batches of an epoch."""
        return len(self._batches(0))

    @functools.lru_cache(maxsize=2)  # noqa: B019  (two epochs of one training run)
    def _batches(self, epoch: int) -> list[tuple[int, np.ndarray]]:
        """Bucket and example indices of every batch of an epoch."""
        rng = np.random.default_rng([self.seed, epoch])
        bucket_of = np.searchsorted(self.limits, self.lengths)
        batches = []
        for bucket, rows in enumerate(self.rows):
            order = rng.permutation(np.flatnonzero(bucket_of == bucket))
            parts = [order[start : start + rows] for start in range(0, len(order), rows)]
            batches += [(bucket, part) for part in parts]
        return [batches[i] for i in rng.permutation(len(batches))]


def length_buckets(
    lengths: Sequence[int], *, buckets: int, batch_size: int, seed: int
) -> LengthBuckets:
    """Schedule with buckets of lengths that hold about equally many examples each.

    Which examples a batch holds does not depend on where it will be computed: what divides it into
    equal parts is rows of padding (`Run.step`). The rows of a bucket are rounded down to a multiple
    of 4 where `batch_size` is one (of 2 where it is even), so that a few devices or micro-batches
    need none.

    Args:
      lengths: `[N]` tokens of each example.
      buckets: number of buckets at most; 1 is plain batches of the longest length.
      batch_size: rows in the bucket of the longest; the others have as many tokens.
      seed: of the orders.
    """
    sizes = np.asarray(lengths)
    shares = np.arange(1, buckets + 1) / buckets
    limits = {-(-int(np.quantile(sizes, share)) // 4) * 4 for share in shares[:-1]}
    limits = [*sorted(limit for limit in limits if limit < sizes.max()), int(sizes.max())]
    unit = math.gcd(batch_size, 4)
    rows = [batch_size * limits[-1] // limit // unit * unit for limit in limits]
    return LengthBuckets(lengths=sizes, limits=tuple(limits), rows=tuple(rows), seed=seed)
