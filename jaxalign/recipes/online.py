"""Online preferences on text: sample two responses, judge them, learn from the comparison."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxalign import objectives
from jaxalign.batches.preferences import OnlineBatch
from jaxalign.batches.tokens import TokenBatch
from jaxalign.config.online import OnlineSettings
from jaxalign.data.records import PromptRow
from jaxalign.models.functions import text_logps
from jaxalign.recipes.iterations import prompt_batches, rounds_left
from jaxalign.recipes.reward_sources import Judges, Reward, judges_of, mean_score
from jaxalign.recipes.run import Run
from jaxalign.recipes.text_models import TextModel, with_heads
from jaxalign.rollouts.pairs import sample_pairs, scored_pairs
from jaxalign.train.step import TrainState


def train_online(
    run: Run,
    name: str,
    policy: TextModel,
    reward: Reward,
    prompts: Sequence[Sequence[int]],
    settings: OnlineSettings,
    *,
    temperature: float,
    max_new_tokens: int,
    records: Sequence[PromptRow] | None = None,
) -> TextModel:
    """A loss on fresh pairs from the policy, which is the reference, resuming where an earlier run
    stopped; every step has samples of its own.

    Without dropout, so that policy and reference are the same function at the first step, and a
    sample's log-probability in the loss is the one that it was drawn with.

    Args:
      policy: start and reference.
      reward: scores prompt and response together: a reward model, a function, or several with
        weights.
      prompts: token ids, BOS included; dealt out in random order.
      settings: loss and loop.
      temperature: of policy and reference, in sampling and training.
      max_new_tokens: longest response.
      records: the rows of the prompts, whose text and columns reward functions get; None: they get
        the prompts decoded.
    """
    policy = with_heads(policy, ("logits",), run.key(f"{name}/init"), dropout=0.0)
    tokenizer = policy.tokenizer
    left = rounds_left(run, name, settings.fit.updates)
    judges = judges_of(reward, tokenizer, prompts, records, rounds=left)
    collect = run.layout.rows(
        sample_pairs(
            policy.model,
            judges.model,
            opponent=settings.opponent,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            eos_id=tokenizer.stop_ids,
        )
    )
    initial, judge = run.layout.place(policy.trained), run.layout.place(judges.params)
    samples = run.key(f"{name}/samples")

    learned = jax.jit(
        functools.partial(
            scored_pairs, missing_eos=settings.missing_eos_penalty, eos_id=tokenizer.stop_ids
        )
    )

    def prepare(
        state: TrainState, asked: tuple[TokenBatch, np.ndarray]
    ) -> tuple[OnlineBatch, dict[str, Any]]:
        rows, numbers = asked
        key = jax.random.fold_in(samples, state.step)
        policies = state.all_params, state.completed(initial)
        batch, measured = collect((*policies, judge, key), rows)
        means = {
            metric: np.average(values, weights=batch.weights) for metric, values in measured.items()
        }
        batch, scores = judged(judges, batch, numbers)
        return learned(batch), means | scores

    loss = objectives.online(
        text_logps(policy.model, temperature=temperature),
        settings.declared_loss,
        score_scale=settings.log_odds_per_score,
        length=max_new_tokens,
    )
    batch_size = settings.fit.rows
    params = run.fit(
        name,
        loss,
        policy.trained,
        prompt_batches(run, prompts, tokenizer.pad_id, size=batch_size),
        settings.fit,
        prepare=prepare,
        frozen=policy.frozen,
    )
    return policy.with_trained(params)


def judged(
    judges: Judges, batch: OnlineBatch, numbers: np.ndarray
) -> tuple[OnlineBatch, dict[str, float]]:
    """The pairs with what all judges together say of both sides, and means of the first one's."""
    columns = [
        judges.columns(side.responses, side.scores, numbers) for side in (batch.first, batch.second)
    ]
    totals = judges.totals(np.concatenate(columns), np.concatenate([numbers, numbers]))
    sides: Any = np.split(totals, 2)
    first, second = sides
    batch = dataclasses.replace(
        batch,
        first=dataclasses.replace(batch.first, scores=sides[0]),
        second=dataclasses.replace(batch.second, scores=sides[1]),
    )
    means = {"scores/mean": mean_score(first), "scores/opponent": mean_score(second)}
    return batch, judges.means(columns[0], first) | means
