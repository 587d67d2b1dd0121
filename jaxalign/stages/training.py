"""What the stages have in common below the command line: rows in, a trained text model out.

The same functions train on a user's data (`jaxalign sft`, ...) and in the main job (`jaxalign rlhf`).
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxalign import objectives
from jaxalign.batches import PairLogps, PreferenceBatch
from jaxalign.config import DPOSettings, FitConfig, RewardSettings
from jaxalign.data.batching import (
    batch_indices,
    comparison_batch,
    evaluation_batches,
    preference_batch,
    token_batch,
)
from jaxalign.data.chat import TokenRow
from jaxalign.data.preferences import Groups
from jaxalign.scoring import response_logps_of, text_logps, text_scores
from jaxalign.stages.run import Run
from jaxalign.stages.text_models import TextModel, with_heads
from jaxalign.train.layouts import pad_rows, trim_rows

SCORING_ROWS = 256  # rows of a scoring pass; all passes have this shape, so each compiles once


def longest(rows: Sequence[TokenRow]) -> int:
    """Length of the longest row, rounded up to a multiple of 8."""
    return -(-max(len(row) for row in rows) // 8) * 8


def train_sft(
    run: Run,
    name: str,
    policy: TextModel,
    rows: Sequence[TokenRow],
    settings: FitConfig,
    *,
    evaluation_rows: Sequence[TokenRow] = (),
) -> TextModel:
    """Next-token cross-entropy on the responses of the rows."""
    token_logps = text_logps(policy.model)
    length = longest(rows)

    def batch(number: int):
        index = batch_indices(number, len(rows), settings.batch_size, run.seed)
        return token_batch(
            [rows[i] for i in index], pad_id=policy.tokenizer.pad_id, length=length, index=index
        )

    def evaluate(params):
        return {
            "perplexity": perplexity(
                run, dataclasses.replace(policy, params=params), evaluation_rows
            )
        }

    params = run.fit(
        name,
        objectives.sft(token_logps),
        policy.params,
        batch,
        settings,
        evaluate=evaluate if evaluation_rows else None,
        evaluate_every=max(settings.steps // 5, 1),
        tokens_per_step=round(settings.batch_size * float(np.mean([len(row) for row in rows]))),
    )
    return dataclasses.replace(policy, params=params)


def train_reward(
    run: Run,
    name: str,
    base: TextModel,
    rows: Sequence[TokenRow],
    groups: Groups,
    settings: RewardSettings,
) -> TextModel:
    """Bradley-Terry on compared texts; scores are scaled to mean 0 and deviation 1 over `rows`.

    Args:
      base: where trunk and vocabulary come from.
      rows: all texts.
      groups: who was preferred to whom; `groups.texts` are positions in `rows`.
      settings: of head, loss and loop.
    """
    model = with_heads(
        base,
        ("score",),
        run.key(f"{name}/init"),
        score_pooling=settings.pooling,
        score_bag=settings.bag,
        dropout=settings.dropout,
    )
    size = groups.texts.shape[1]
    length = longest(rows)

    def batch(number: int):
        chosen = batch_indices(number, len(groups.texts), settings.fit.batch_size // size, run.seed)
        return comparison_batch(
            [[rows[i] for i in group] for group in groups.texts[chosen]],
            groups.preferences[chosen],
            pad_id=base.tokenizer.pad_id,
            length=length,
            index=groups.texts[chosen],
        )

    loss = objectives.reward(text_scores(model.model), centering=settings.centering)
    params = run.fit(name, loss, model.params, batch, settings.fit)
    trained = dataclasses.replace(model, params=params)
    return standardised(trained, score_rows(run, trained, rows))


def standardised(reward: TextModel, scores: np.ndarray) -> TextModel:
    """The same ranking with mean 0 and deviation 1 over the texts that got these scores.

    Every parameter of the score head is a factor of the score, so the scale goes into all of them
    and the shift into the bias.
    """
    scale = 1 / scores.std()
    head = jax.tree.map(lambda leaf: leaf * scale, reward.params["score"])
    readout = head["readout"] | {"bias": head["readout"]["bias"] - scores.mean() * scale}
    params = reward.params | {"score": head | {"readout": readout}}
    return dataclasses.replace(reward, params=params)


def train_dpo(
    run: Run,
    name: str,
    policy: TextModel,
    chosen: Sequence[TokenRow],
    rejected: Sequence[TokenRow],
    settings: DPOSettings,
    *,
    evaluate: Callable[[Any], dict[str, float]] | None = None,
    evaluate_every: int | None = None,
) -> TextModel:
    """DPO from the policy, which is the reference; its log-probabilities are computed once.

    Without dropout, so that policy and reference are the same function at the first step.
    """
    policy = with_heads(policy, ("logits",), run.key(f"{name}/init"), dropout=0.0)
    token_logps = text_logps(policy.model)
    length = longest([*chosen, *rejected])
    logps = [response_logps(run, policy, side) for side in (chosen, rejected)]

    def batch(number: int):
        index = batch_indices(number, len(chosen), settings.fit.batch_size, run.seed)
        pairs: PreferenceBatch = preference_batch(
            [chosen[i] for i in index],
            [rejected[i] for i in index],
            pad_id=policy.tokenizer.pad_id,
            length=length,
            index=index,
        )
        reference = PairLogps(chosen=logps[0][index], rejected=logps[1][index])
        return dataclasses.replace(pairs, reference=reference)

    loss = objectives.dpo(
        token_logps,
        beta=settings.beta,
        label_smoothing=settings.label_smoothing,
        robust=settings.robust,
    )
    params = run.fit(
        name,
        loss,
        policy.params,
        batch,
        settings.fit,
        evaluate=evaluate,
        evaluate_every=evaluate_every,
    )
    return dataclasses.replace(policy, params=params)


def by_rows(run: Run, fn, shared, rows: Sequence[TokenRow], pad_id: int) -> np.ndarray:
    """`fn(shared, TokenBatch) -> [B, ...]` over any number of rows, in passes of one shape."""
    compiled = run.rows(fn)
    length, parts = longest(rows), []
    for index in evaluation_batches(len(rows), SCORING_ROWS):
        batch = token_batch([rows[i] for i in index], pad_id=pad_id, length=length, index=index)
        batch, real = pad_rows(batch, SCORING_ROWS)
        parts.append(trim_rows(compiled(shared, batch), real))
    return np.concatenate(parts)


def score_rows(run: Run, reward: TextModel, rows: Sequence[TokenRow]) -> np.ndarray:
    """`[N]` reward-model scores."""
    return by_rows(run, text_scores(reward.model), reward.params, rows, reward.tokenizer.pad_id)


def response_logps(run: Run, policy: TextModel, rows: Sequence[TokenRow]) -> np.ndarray:
    """`[N]` log-probabilities of the responses in nats."""
    summed = response_logps_of(policy.model)
    return by_rows(run, summed, policy.params, rows, policy.tokenizer.pad_id)


def perplexity(run: Run, policy: TextModel, rows: Sequence[TokenRow]) -> float:
    """exp of the mean negative log-probability of a response token (EOS included)."""
    tokens = sum(int(row.is_response.sum()) for row in rows)
    return float(np.exp(-response_logps(run, policy, rows).sum() / tokens))
