"""Supervised fine-tuning: token rows in, a trained policy out."""

import dataclasses
from collections.abc import Sequence

from jaxalign import objectives
from jaxalign.config.loop import FitConfig
from jaxalign.data.chat import TokenRow
from jaxalign.models.functions import text_logps
from jaxalign.numerics.types import Params
from jaxalign.recipes.run import Run
from jaxalign.recipes.scoring import perplexity
from jaxalign.recipes.stage import Evaluation, Learner, fit_batches
from jaxalign.recipes.text_batches import TextBatches, counted
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
      batches: from `bucketed` or `packed`.
      settings: of the loop.
      evaluation_rows: held out; their perplexity is computed along the way.
    """

    def evaluate(params: Params):
        return {
            "perplexity": perplexity(
                run, dataclasses.replace(policy, params=params), evaluation_rows
            )
        }

    loss = objectives.sft(text_logps(policy.model))
    evaluation = Evaluation(metrics=evaluate, every=max(settings.updates // 5, 1))
    params = fit_batches(
        run,
        name,
        Learner(params=policy.trained, frozen=policy.frozen, loss_fn=loss),
        batches.batch,
        settings=settings,
        prepare=counted,
        evaluation=evaluation if evaluation_rows else None,
        tokens_per_step=batches.tokens,
    )
    return policy.with_trained(params)
