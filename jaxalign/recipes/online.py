"""Online preference learning: two sampled responses to a prompt, their scores, a pair loss."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxalign import objectives
from jaxalign.batches.preferences import OnlineBatch
from jaxalign.config.online import OnlineSettings
from jaxalign.models.functions import text_logps
from jaxalign.recipes.prompts import PromptBatch, prompt_batches
from jaxalign.recipes.reward_sources import Judges, mean_score
from jaxalign.recipes.run import Run
from jaxalign.recipes.sampler import SAMPLE_METRICS, Sampler, TextTask, make_sampler
from jaxalign.recipes.stage import Learner, fit_batches
from jaxalign.recipes.text_models import TextModel, with_heads
from jaxalign.rollouts.pairs import sample_pairs, scored_pairs
from jaxalign.train.step import TrainState


def train_online(
    run: Run,
    name: str,
    policy: TextModel,
    task: TextTask,
    *,
    settings: OnlineSettings,
) -> TextModel:
    """A policy trained by a preference loss on pairs that it samples anew for every step.

    Without dropout, so that policy and reference are the same function at the first step, and a
    sample's log-probability in the loss is the one that it was drawn with.

    Args:
      policy: start and reference.
      task: prompts, reward and sampling.
      settings: loss and loop.
    """
    policy = with_heads(policy, ("logits",), run.key(f"{name}/init"), dropout=0.0)
    judges = task.judges(run, name, policy.tokenizer, updates=settings.fit.updates)
    decoding = task.decoding(policy.tokenizer)
    collect = sample_pairs(policy.model, judges.model, opponent=settings.opponent, **decoding)
    loss = objectives.online(
        text_logps(policy.model, temperature=task.temperature),
        settings.declared_loss,
        score_scale=settings.log_odds_per_score,
        length=task.max_new_tokens,
    )
    sampler = make_sampler(run, collect, reference=policy, judges=judges)
    pad_id, size = policy.tokenizer.pad_id, settings.fit.rows
    params = fit_batches(
        run,
        name,
        Learner(
            model=policy,
            params=policy.trained,
            frozen=policy.frozen,
            loss_fn=loss,
            shown=(*SAMPLE_METRICS, "rewards/accuracy"),
        ),
        prompt_batches(task.prompts, seed=run.seed, pad_id=pad_id, size=size),
        settings=settings.fit,
        prepare=_fresh_pairs(sampler, judges, settings, run.key(f"{name}/samples")),
    )
    return policy.with_trained(params)


def _fresh_pairs(
    sampler: Sampler, judges: Judges, settings: OnlineSettings, samples: jax.Array
) -> Callable[[TrainState, PromptBatch], tuple[OnlineBatch, dict[str, Any]]]:
    """Two sampled and scored responses of the current policy to every prompt."""
    learned = jax.jit(
        functools.partial(
            scored_pairs,
            missing_eos=settings.missing_eos_penalty,
            eos_id=judges.tokenizer.stop_ids,
        )
    )

    def prepare(state: TrainState, prompt_batch: PromptBatch) -> tuple[OnlineBatch, dict[str, Any]]:
        rows, index = prompt_batch
        batch, measured = sampler(state, jax.random.fold_in(samples, state.step), rows)
        means = {
            metric: np.average(values, weights=batch.weights) for metric, values in measured.items()
        }
        batch, scores = pairs_with_total_scores(judges, batch, index)
        return learned(batch), means | scores

    return prepare


def pairs_with_total_scores(
    judges: Judges, batch: OnlineBatch, index: np.ndarray
) -> tuple[OnlineBatch, dict[str, float]]:
    """Pairs with the weighted sums of all sources' scores, and means of the first side's scores."""
    columns = [
        judges.columns(side.responses, side.scores, index) for side in (batch.first, batch.second)
    ]
    totals = judges.totals(np.concatenate(columns), np.concatenate([index, index]))
    sides: Any = np.split(totals, 2)
    first, second = sides
    batch = dataclasses.replace(
        batch,
        first=dataclasses.replace(batch.first, scores=sides[0]),
        second=dataclasses.replace(batch.second, scores=sides[1]),
    )
    means = {"scores/mean": mean_score(first), "scores/opponent": mean_score(second)}
    return batch, judges.means(columns[0], first) | means
