"""Supervised fine-tuning: token rows in, a trained policy out."""

import dataclasses
from collections.abc import Sequence

from jaxalign import objectives
from jaxalign.config.loop import FitConfig
from jaxalign.data.chat import TokenRow
from jaxalign.models.functions import (
    text_logps,
)
from jaxalign.recipes.run import Run
from jaxalign.recipes.scoring import perplexity
from jaxalign.recipes.text_batches import TextBatches, counted
from jaxalign.recipes.text_models import TextModel


def train_sft(
    run: Run,
    name: str,
    policy: TextModel,
    batches: TextBatches,
    settings: FitConfig,
    *,
    evaluation_rows: Sequence[TokenRow] = (),
) -> TextModel:
    """Next-token cross-entropy on the responses of `bucketed` or `packed` rows."""

    def evaluate(params):
        return {
            "perplexity": perplexity(
                run, dataclasses.replace(policy, params=params), evaluation_rows
            )
        }

    params = run.fit(
        name,
        objectives.sft(text_logps(policy.model)),
        policy.trained,
        batches.batch,
        settings,
        frozen=policy.frozen,
        evaluate=evaluate if evaluation_rows else None,
        evaluate_every=max(settings.updates // 5, 1),
        tokens_per_step=batches.tokens,
        prepare=counted,
    )
    return policy.with_trained(params)
