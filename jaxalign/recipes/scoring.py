"""Scores, log-probabilities and perplexity of any number of token rows under a model."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from jaxalign.data.batching import token_batch
from jaxalign.data.chat import TokenRow
from jaxalign.data.packed_scoring import packed_scoring
from jaxalign.data.prompt_groups import grouped_batch, prompt_groups, single_texts
from jaxalign.data.scoring_batches import MOST_TOKENS, scoring_batches
from jaxalign.evaluation.text_statistics import perplexity as perplexity_of
from jaxalign.layouts.layout import pad_rows, trim_rows
from jaxalign.models.functions import reads_last, text_end_scores, text_logps, text_scores
from jaxalign.numerics.types import Params, Tree
from jaxalign.recipes.run import Run
from jaxalign.recipes.text_models import TextModel
from jaxalign.system.console import counted

# What a program costs to compile, as tokens times parameters computed in that time (2 seconds).
COMPILATION = {"cpu": 1e11}
COMPILATION_ON_ACCELERATOR = 1e14
# So few tokens make a packed batch of a large model on a processor: it is as quick with them, and
# one program serves any number of texts with little padding. A small one gets what takes 2 seconds.
FEW_TOKENS = 1024


def longest(rows: Sequence[TokenRow]) -> int:
    """Length of the longest row."""
    return max(len(row) for row in rows)


def scored_batches(
    run: Run, fn: Callable[..., Any], shared: Tree, rows: Sequence[TokenRow], *, pad_id: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions of rows and outputs of `fn(shared, TokenBatch) -> [B, ...]` for them, batch by
    batch, until every row has come once.

    Rows of like length go together, in batches of few shapes; so a row's outputs are rounded as the
    length of its batch has it.
    """
    layout, compiled = run.layout, run.rows(fn)
    shared = layout.put_shared(shared)
    lengths, devices = [len(row) for row in rows], len(layout.devices)
    parts = scoring_batches(lengths, shape_cost=_shape_cost(run, shared), multiple=devices)
    with counted("scoring", len(parts)) as advance:
        for done, part in enumerate(parts, start=1):
            index = part.index
            chosen = [rows[i] for i in index]
            batch = token_batch(chosen, pad_id=pad_id, length=part.length, index=index)
            batch, real = pad_rows(batch, part.rows)
            yield index, trim_rows(compiled(shared, batch), real)
            advance(done)


def by_rows(
    run: Run, fn: Callable[..., Any], shared: Tree, rows: Sequence[TokenRow], *, pad_id: int
) -> np.ndarray:
    """`[N, ...]` outputs of `scored_batches`, in the order of the rows; they may not depend on the
    length of a batch.
    """
    indices, parts = zip(*scored_batches(run, fn, shared, rows, pad_id=pad_id), strict=True)
    return np.concatenate(parts)[np.argsort(np.concatenate(indices))]


def score_rows(run: Run, reward: TextModel, rows: Sequence[TokenRow]) -> np.ndarray:
    """`[N]` reward-model scores; those of texts that the model is known to give are not computed
    again.
    """
    known = reward.known_outputs(rows, "scores")
    missing = [number for number, score in enumerate(known) if score is None]
    scores = np.array([0.0 if score is None else score for score in known], np.float32)
    if missing:
        scores[missing] = _computed_scores(run, reward, [rows[number] for number in missing])
    return scores


def _computed_scores(run: Run, reward: TextModel, rows: Sequence[TokenRow]) -> np.ndarray:
    """`[N]` scores; on a processor of packed rows, where the model reads the last token alone."""
    pad_id, is_processor = reward.tokenizer.pad_id, run.layout.devices[0].platform == "cpu"
    if not (is_processor and reads_last(reward.model)):
        return by_rows(run, text_scores(reward.model), reward.params, rows, pad_id=pad_id)
    scores = np.empty(len(rows), np.float32)
    limits = {"pad_id": pad_id, "longest_row": reward.max_length}
    read = text_end_scores(reward.model)
    for number, outputs in of_tokens(run, read, reward.params, rows, **limits):
        scores[number] = outputs[-1]
    return scores


def of_tokens(
    run: Run,
    fn: Callable[..., Any],
    params: Params,
    rows: Sequence[TokenRow],
    *,
    pad_id: int,
    longest_row: int,
) -> Iterator[tuple[int, Any]]:
    """Positions of rows and outputs of `fn(params, PackedBatch) -> [B, T]` for the tokens of each,
    `[T]`, until every row has come once.

    Rows are packed, in batches of one shape where that can be. On a processor several responses to
    a prompt share it; an accelerator's own kernels read no such rows.

    Args:
      fn: its outputs may be a pytree of arrays.
      longest_row: that the model reads, in tokens.
    """
    layout, compiled = run.layout, run.rows(fn)
    params = layout.put_shared(params)
    cost = _shape_cost(run, params)
    is_processor = layout.devices[0].platform == "cpu"
    groups = prompt_groups(rows) if is_processor else single_texts(rows)
    parts = packed_scoring(
        [group.size for group in groups],
        shape_cost=cost,
        most_tokens=int(min(MOST_TOKENS, max(FEW_TOKENS, cost))) if is_processor else MOST_TOKENS,
        longest_row=longest_row,
        multiple=len(layout.devices),
    )
    with counted("scoring", len(parts)) as advance:
        for done, part in enumerate(parts, start=1):
            size, length = part.shape
            packed = [[groups[i] for i in row] for row in part.texts]
            form = {"pad_id": pad_id, "length": length, "branches": is_processor}
            batch, places = grouped_batch(rows, packed, **form)
            outputs = compiled(params, pad_rows(batch, size)[0])
            for i, place in places.items():
                yield i, jax.tree.map(lambda x, at=place: x[at], outputs)
            advance(done)


def response_logps(
    run: Run, policy: TextModel, rows: Sequence[TokenRow], *, temperature: float = 1.0
) -> np.ndarray:
    """`[N]` log-probabilities of the responses in nats; those of texts that the policy is known to
    give are not computed again.
    """
    sums = np.empty(len(rows), np.float32)
    missing: list[int] = []
    known = policy.known_outputs(rows, ("logps", temperature))
    for number, (row, logps) in enumerate(zip(rows, known, strict=True)):
        if logps is None:
            missing.append(number)
        else:
            sums[number] = _sum_of(logps, row)
    read = text_logps(policy.model, temperature=temperature)
    limits = {"pad_id": policy.tokenizer.pad_id, "longest_row": policy.max_length}
    parts = [rows[number] for number in missing]
    for place, logps in of_tokens(run, read, policy.params, parts, **limits):
        sums[missing[place]] = _sum_of(logps, parts[place])
    return sums


def _sum_of(logps: np.ndarray, row: TokenRow) -> float:
    return float(np.sum(logps, where=row.is_response, dtype=np.float64))


def perplexity(
    run: Run, policy: TextModel, rows: Sequence[TokenRow], *, temperature: float = 1.0
) -> float:
    """exp of the mean negative log-probability of a response token (EOS included)."""
    tokens = sum(int(row.is_response.sum()) for row in rows)
    logps = response_logps(run, policy, rows, temperature=temperature)
    return perplexity_of(logps, tokens)


def _shape_cost(run: Run, shared: Tree) -> float:
    """Tokens that could be computed in the time that one more program takes to compile."""
    parameters = max(1, sum(int(np.size(leaf)) for leaf in jax.tree.leaves(shared)))
    platform = run.layout.devices[0].platform
    return COMPILATION.get(platform, COMPILATION_ON_ACCELERATOR) / parameters
