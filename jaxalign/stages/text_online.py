"""Online preferences on text: sample two responses, judge them, learn from the comparison."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxalign import objectives
from jaxalign.batches import OnlineBatch, TokenBatch
from jaxalign.config_online import OnlineSettings
from jaxalign.pair_rollouts import sample_pairs
from jaxalign.scoring import text_logps
from jaxalign.stages.run import Run
from jaxalign.stages.text_models import TextModel, with_heads
from jaxalign.stages.text_rounds import prompt_batches
from jaxalign.train.step import TrainState


def train_online(
    run: Run,
    name: str,
    policy: TextModel,
    reward: TextModel,
    prompts: Sequence[Sequence[int]],
    settings: OnlineSettings,
    *,
    temperature: float,
    max_new_tokens: int,
) -> TextModel:
    """A loss on fresh pairs from the policy, which is the reference, resuming where an earlier run
    stopped; every step has samples of its own.

    Without dropout, so that policy and reference are the same function at the first step, and a
    sample's log-probability in the loss is the one that it was drawn with.

    Args:
      policy: start and reference.
      reward: scores prompt and response together.
      prompts: token ids, BOS included; dealt out in random order.
      settings: loss and loop.
      temperature: of policy and reference, in sampling and training.
      max_new_tokens: longest response.
    """
    policy = with_heads(policy, ("logits",), run.key(f"{name}/init"), dropout=0.0)
    tokenizer = policy.tokenizer
    collect = run.layout.rows(
        sample_pairs(
            policy.model,
            reward.model,
            opponent=settings.opponent,
            missing_eos=settings.missing_eos_penalty,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            eos_id=tokenizer.eos_id,
        )
    )
    frozen = run.layout.place(policy.params), run.layout.place(reward.params)
    samples = run.key(f"{name}/samples")

    def prepare(state: TrainState, rows: TokenBatch) -> tuple[OnlineBatch, dict[str, Any]]:
        key = jax.random.fold_in(samples, state.step)
        batch, measured = collect((state.params, *frozen, key), rows)
        means = {
            metric: np.average(values, weights=batch.weights) for metric, values in measured.items()
        }
        return batch, means

    loss = objectives.online(
        text_logps(policy.model, temperature=temperature),
        settings.loss,
        pair_loss=settings.pair_loss,
        score_scale=settings.log_odds_per_score,
        **settings.hyperparameters,
    )
    batch_size = settings.fit.batch_size
    params = run.fit(
        name,
        loss,
        policy.params,
        prompt_batches(run, prompts, tokenizer.pad_id, size=batch_size),
        settings.fit,
        prepare=prepare,
    )
    return dataclasses.replace(policy, params=params)
