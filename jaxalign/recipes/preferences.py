"""Training on pairs and on labelled responses: DPO, KTO and their relatives."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxalign import objectives
from jaxalign.batches.preferences import PairLogps, SharedPreferenceBatch
from jaxalign.config.dpo import DPOSettings
from jaxalign.config.kto import KTOSettings
from jaxalign.data.batching import (
    batch_indices,
    mismatched_rows,
    shared_lengths,
    shared_preference_batch,
    unpaired_batch,
)
from jaxalign.data.chat import TokenRow
from jaxalign.models.functions import (
    text_logps,
    text_logps_and_collisions,
)
from jaxalign.recipes.run import Run
from jaxalign.recipes.scoring import longest, response_logps
from jaxalign.recipes.stage import Evaluation, Learner, fit_batches
from jaxalign.recipes.text_models import TextModel, with_heads


def train_dpo(
    run: Run,
    name: str,
    policy: TextModel,
    chosen: Sequence[TokenRow],
    rejected: Sequence[TokenRow],
    settings: DPOSettings,
    *,
    temperature: float,
    gold: Sequence[TokenRow] | None = None,
    score_reference: Callable[..., np.ndarray] | None = None,
    evaluation: Evaluation | None = None,
) -> TextModel:
    """A loss on pairs from the policy, which is the reference; its log-probabilities are computed
    once, and not at all for a loss without a reference.

    The policy is the distribution at that temperature, in the loss as in sampling. Without
    dropout, so that policy and reference are the same function at the first step; only a trained
    adapter that goes on with `lora.dropout` differs from itself by that noise.

    Args:
      gold: best responses, for the losses that imitate one.
      score_reference: `response_logps`, which is the default, or one that keeps what it computes.
      evaluation: along the way.
    """
    policy = with_heads(policy, ("logits",), run.key(f"{name}/init"), dropout=0.0)
    named = objectives.PAIR_LOSSES[settings.loss_name]
    gold = gold if named.needs("gold_logps") else None
    sides = [side for side in (chosen, rejected, gold) if side is not None]
    lengths = shared_lengths(list(zip(*sides, strict=True)))
    reference = None
    if settings.uses_reference:
        reference = pair_logps(
            functools.partial(score_reference or response_logps, run, policy),
            (chosen, rejected),
            ld_alpha=settings.ld_alpha,
            temperature=temperature,
        )
    elif settings.reference_free:
        reference = zero_logps(len(chosen))

    def batch(number: int):
        index = batch_indices(number, len(chosen), settings.fit.rows, run.seed)
        pairs: SharedPreferenceBatch = shared_preference_batch(
            [[side[i] for i in index] for side in sides],
            pad_id=policy.tokenizer.pad_id,
            lengths=lengths,
            index=index,
        )
        return dataclasses.replace(pairs, reference=jax.tree.map(lambda x: x[index], reference))

    loss = objectives.paired(
        (text_logps_and_collisions if settings.wpo else text_logps)(
            policy.model, temperature=temperature
        ),
        settings.loss_name,
        ld_alpha=settings.ld_alpha,
        wpo=settings.wpo,
        axis_name=run.layout.axis_name,
        **settings.hyperparameters,
    )
    learner = Learner(
        params=policy.trained, frozen=policy.frozen, loss_fn=loss, **running_shift_of(named)
    )
    params = fit_batches(run, name, learner, batch, settings=settings.fit, evaluation=evaluation)
    return policy.with_trained(params)


def train_unpaired(
    run: Run,
    name: str,
    policy: TextModel,
    rows: Sequence[TokenRow],
    labels: Sequence[bool],
    settings: KTOSettings,
    *,
    temperature: float,
    score_reference: Callable[..., np.ndarray] | None = None,
) -> TextModel:
    """A loss on labelled responses from the policy, which is the reference; its log-probabilities
    are computed once. As `train_dpo` otherwise.
    """
    policy = with_heads(policy, ("logits",), run.key(f"{name}/init"), dropout=0.0)
    named = objectives.UNPAIRED_LOSSES[settings.loss]
    good, length = np.asarray(labels, bool), longest(rows)
    score = functools.partial(score_reference or response_logps, run, policy)
    reference = score(rows, temperature=temperature)
    others: list[TokenRow] | None = None
    other_logps = None
    if named.needs("kl"):
        others = mismatched_rows(rows, max_length=length)
        other_logps = score(others, temperature=temperature)

    def batch(number: int):
        index = batch_indices(number, len(rows), settings.fit.rows, run.seed)
        return unpaired_batch(
            [rows[i] for i in index],
            good[index],
            reference[index],
            pad_id=policy.tokenizer.pad_id,
            length=length,
            index=index,
            mismatched=None if others is None else [others[i] for i in index],
            mismatched_reference=None if other_logps is None else other_logps[index],
        )

    logps = text_logps(policy.model, temperature=temperature)
    learner = Learner(
        params=policy.trained,
        frozen=policy.frozen,
        loss_fn=objectives.unpaired(
            logps, settings.loss, axis_name=run.layout.axis_name, **settings.hyperparameters
        ),
        measure=objectives.mismatched_log_ratios(logps) if named.needs("kl") else None,
        **running_shift_of(named),
    )
    params = fit_batches(run, name, learner, batch, settings=settings.fit)
    return policy.with_trained(params)


def running_shift_of(named: objectives.NamedLoss) -> dict[str, Any]:
    """What a `Learner` is told of the running mean that a loss reads, if it reads one."""
    if not named.needs("shift"):
        return {}
    return {"statistics": objectives.no_shift(), "track": objectives.track_shift}


def pair_logps(
    score: Callable[..., np.ndarray],
    sides: tuple[Sequence[TokenRow], Sequence[TokenRow]],
    *,
    ld_alpha: float | None,
    temperature: float,
) -> PairLogps:
    """Response log-probabilities of both sides, `[N]`; with `ld_alpha` those of LD-DPO.

    What LD-DPO counts in full is a prefix, so its sums are a mixture of those over the prefixes
    and those over all.

    Args:
      score: `(rows, temperature=...) -> [N]`, of a model.
    """
    logps: list[Any] = [score(side, temperature=temperature) for side in sides]
    if ld_alpha is not None:
        counts = [np.array([row.is_response.sum() for row in side]) for side in sides]
        for number, side in enumerate(sides):
            prefixes = [
                first_responses(row, public)
                for row, public in zip(side, np.minimum(*counts), strict=True)
            ]
            prefix_logps = score(prefixes, temperature=temperature)
            logps[number] = ld_alpha * logps[number] + (1 - ld_alpha) * prefix_logps
    return PairLogps(chosen=logps[0], rejected=logps[1])


def zero_logps(rows: int) -> PairLogps:
    """The reference of a loss that is made reference-free: `[N]` zeros a side."""
    zeros: Any = np.zeros(rows, np.float32)
    return PairLogps(chosen=zeros, rejected=zeros)


def first_responses(row: TokenRow, count: int) -> TokenRow:
    """The same tokens; only the first `count` of the response's count as response."""
    return TokenRow(row.tokens, row.is_response & (np.cumsum(row.is_response) <= count))
