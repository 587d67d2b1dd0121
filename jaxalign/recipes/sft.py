"""Supervised fine-tuning: a policy trained on token rows."""

import dataclasses
from collections.abc import Sequence

from jaxalign import objectives
from jaxalign.config.loop import FitConfig
from jaxalign.data.chat import TokenRow
from jaxalign.models.functions import text_logps
from jaxalign.recipes.run import Run
from jaxalign.recipes.scoring import perplexity
from jaxalign.recipes.stage import Evaluation, Objective, fit_batches
from jaxalign.recipes.text_batches import TextBatches, with_token_counts
from jaxalign.recipes.text_models import TextModel
from jaxalign.train.step import TrainState


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
      evaluation_rows: held out; their perplexity is computed along the way.
    """

    def evaluate(state: TrainState):
        trained = dataclasses.replace(policy, params=state.all_params)
        return {"perplexity": perplexity(run, trained, evaluation_rows)}

    evaluation = Evaluation(metrics=evaluate, every=max(settings.updates // 5, 1))
    params = fit_batches(
        run,
        name,
        sft_objective(policy).learner(policy),
        batches.batch,
        settings=settings,
        steps_per_epoch=batches.per_epoch,
        prepare=with_token_counts,
        evaluation=evaluation if evaluation_rows else None,
        tokens_per_step=batches.tokens,
    )
    return policy.with_trained(params)


def sft_objective(policy: TextModel) -> Objective:
    """Next-token cross-entropy of the policy."""
    return Objective(read=text_logps(policy.model), make_loss=objectives.sft)
