"""Scores, log-probabilities and perplexity of any number of token rows under a model."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from jaxalign.data.batching import token_batch
from jaxalign.data.chat import TokenRow
from jaxalign.data.scoring_batches import scoring_batches
from jaxalign.evaluation.text_statistics import perplexity as perplexity_of
from jaxalign.layouts.layout import pad_rows, trim_rows
from jaxalign.models.functions import response_logps_of, text_scores
from jaxalign.numerics.types import Tree
from jaxalign.recipes.run import Run
from jaxalign.recipes.text_models import TextModel
from jaxalign.system.console import counted

# What a program costs to compile, as tokens times parameters computed in that time (2 seconds).
COMPILATION = {"cpu": 1e11}
COMPILATION_ON_ACCELERATOR = 1e14


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
    parameters = max(1, sum(int(np.size(leaf)) for leaf in jax.tree.leaves(shared)))
    compilation = COMPILATION.get(layout.devices[0].platform, COMPILATION_ON_ACCELERATOR)
    lengths, devices = [len(row) for row in rows], len(layout.devices)
    cost = compilation / parameters
    parts = scoring_batches(lengths, shape_cost=cost, multiple=devices)
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
    """`[N]` reward-model scores."""
    return by_rows(
        run, text_scores(reward.model), reward.params, rows, pad_id=reward.tokenizer.pad_id
    )


def response_logps(
    run: Run, policy: TextModel, rows: Sequence[TokenRow], *, temperature: float = 1.0
) -> np.ndarray:
    """`[N]` log-probabilities of the responses in nats."""
    summed = response_logps_of(policy.model, temperature=temperature)
    return by_rows(run, summed, policy.params, rows, pad_id=policy.tokenizer.pad_id)


def perplexity(
    run: Run, policy: TextModel, rows: Sequence[TokenRow], *, temperature: float = 1.0
) -> float:
    """exp of the mean negative log-probability of a response token (EOS included)."""
    tokens = sum(int(row.is_response.sum()) for row in rows)
    logps = response_logps(run, policy, rows, temperature=temperature)
    return perplexity_of(logps, tokens)
