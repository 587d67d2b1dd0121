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
from jaxalign.recipes.fit_loop import Evaluation
from jaxalign.recipes.held_out import HeldOut, TokenScores, scored_evaluation
from jaxalign.recipes.learner import Objective
from jaxalign.recipes.packed_step import can_be_packed
from jaxalign.recipes.run import Run
from jaxalign.recipes.scoring import longest
from jaxalign.recipes.stage import fit_batches
from jaxalign.recipes.step_model import step_model
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
    computed = step_model(policy, run.layout, settings.updates)
    read = text_logps_and_likeliest(computed.model)  # for the accuracy of tokens too
    shown = ("loss", "tokens/accuracy")
    objective = dataclasses.replace(sft_objective(computed), read=read, shown=shown)
    scores = TokenScores(run=run, model=computed, read=read)
    params = fit_batches(
        run,
        name,
        objective.learner(policy, computed, packed=can_be_packed(computed, run.layout)),
        batches.batch,
        settings=settings,
        steps_per_epoch=batches.per_epoch,
        prepare=with_token_counts,
        evaluation=_on_held_out(run, objective, evaluation_rows, scores, settings),
        tokens_per_step=batches.tokens,
    )
    return scores.known_to(policy.with_trained(params), name, temperature=1.0)


def _on_held_out(
    run: Run, objective: Objective, rows: Sequence[TokenRow], scores: TokenScores, fit: FitConfig
) -> Evaluation | None:
    """Evaluation on held-out rows, one text in each; in batches as large as scoring passes."""
    if not rows:
        return None
    length = longest(rows)

    def batch(index: np.ndarray):
        chosen, pad_id = [rows[i] for i in index], scores.model.tokenizer.pad_id
        return token_batch(chosen, pad_id=pad_id, length=length, index=index)

    held_out = HeldOut(batch=batch, rows=len(rows), size=most_rows(length), every=fit.eval_every)
    return scored_evaluation(run, objective.make_loss, held_out, scores)


def sft_objective(policy: TextModel) -> Objective:
    """Next-token cross-entropy of the policy."""
    return Objective(read=text_logps(policy.model), make_loss=objectives.sft)
