"""Supervised fine-tuning: a policy trained on token rows."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxalign import objectives
from jaxalign.config.loop import FitConfig
from jaxalign.data.batching import token_batch
from jaxalign.data.chat import TokenRow
from jaxalign.data.scoring_batches import most_rows
from jaxalign.models.functions import text_logps, text_logps_and_likeliest
from jaxalign.recipes.held_out import held_out_evaluation, without_noise
from jaxalign.recipes.run import Run
from jaxalign.recipes.scoring import longest
from jaxalign.recipes.stage import Evaluation, Objective, fit_batches
from jaxalign.recipes.text_batches import TextBatches, with_token_counts
from jaxalign.recipes.text_models import TextModel


def train_sft(
    run: Run,
    name: str,
    policy: TextModel,
    batches: TextBatches,
    *,
    settings: FitConfig,
    evaluation_rows: Sequence[TokenRow] = (),
) -> TextModel:
    """A policy trained on the next-token cross-entropy of responses.

    Args:
      policy: start.
      batches: from `bucketed_batches` or `packed_batches`.
      settings: of the loop.
      evaluation_rows: held out; the loss on them is computed along the way.
    """
    read = text_logps_and_likeliest(policy.model)  # for the accuracy of tokens too
    shown = ("loss", "tokens/accuracy")
    objective = dataclasses.replace(sft_objective(policy), read=read, shown=shown)
    params = fit_batches(
        run,
        name,
        objective.learner(policy),
        batches.batch,
        settings=settings,
        steps_per_epoch=batches.per_epoch,
        prepare=with_token_counts,
        evaluation=_on_held_out(run, objective, evaluation_rows, policy, settings),
        tokens_per_step=batches.tokens,
    )
    return policy.with_trained(params)


def _on_held_out(
    run: Run, objective: Objective, rows: Sequence[TokenRow], policy: TextModel, fit: FitConfig
) -> Evaluation | None:
    """Evaluation on held-out rows, one text in each; in batches as large as scoring passes."""
    if not rows:
        return None
    length = longest(rows)

    def batch(index: np.ndarray):
        chosen, pad_id = [rows[i] for i in index], policy.tokenizer.pad_id
        return token_batch(chosen, pad_id=pad_id, length=length, index=index)

    loss_fn = objective.make_loss(without_noise(objective.read))
    size = most_rows(length)
    return held_out_evaluation(run, loss_fn, batch, rows=len(rows), size=size, every=fit.eval_every)


def sft_objective(policy: TextModel) -> Objective:
    """Next-token cross-entropy of the policy."""
    return Objective(read=text_logps(policy.model), make_loss=objectives.sft)
