"""Scores, log-probabilities and perplexity of any number of token rows under a model."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxalign.data.batching import token_batch
from jaxalign.data.chat import TokenRow
from jaxalign.data.example_order import evaluation_batches
from jaxalign.evaluation.text_statistics import perplexity as perplexity_of
from jaxalign.layouts.layout import pad_rows, trim_rows
from jaxalign.models.functions import response_logps_of, text_scores
from jaxalign.numerics.types import Tree
from jaxalign.recipes.run import Run
from jaxalign.recipes.text_models import TextModel
from jaxalign.system.console import counted

# Tokens and rows of a scoring pass, at most; all passes over some rows have one shape.
SCORING_TOKENS = 16_384
SCORING_ROWS = 256


def longest(rows: Sequence[TokenRow]) -> int:
    """Length of the longest row."""
    return max(len(row) for row in rows)


def by_rows(
    run: Run, fn: Callable[..., Any], shared: Tree, rows: Sequence[TokenRow], *, pad_id: int
) -> np.ndarray:
    """Outputs of `fn(shared, TokenBatch) -> [B, ...]` for any number of rows, in passes of one
    shape.
    """
    compiled = run.rows(fn)
    length, parts = longest(rows), []
    size = min(SCORING_ROWS, SCORING_TOKENS // length) or 1
    with counted("scoring", -(-len(rows) // size)) as advance:
        for index in evaluation_batches(len(rows), size):
            batch = token_batch([rows[i] for i in index], pad_id=pad_id, length=length, index=index)
            batch, real = pad_rows(batch, size)
            parts.append(trim_rows(compiled(shared, batch), real))
            advance(len(parts))
    return np.concatenate(parts)


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
