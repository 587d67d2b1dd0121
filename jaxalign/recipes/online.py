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
from jaxalign.recipes.learner import Learner
from jaxalign.recipes.prompts import PromptBatch, prompt_batches
from jaxalign.recipes.reward_sources import Judged, Judges, mean_score
from jaxalign.recipes.run import Run
from jaxalign.recipes.sample_evaluation import sampled_evaluation
from jaxalign.recipes.sample_metrics import PhaseClock, response_metrics
from jaxalign.recipes.sample_records import Drawn, SampleRecords, sample_records
from jaxalign.recipes.sampler import SAMPLE_METRICS, Sampler, TextTask, make_sampler
from jaxalign.recipes.stage import fit_batches
from jaxalign.recipes.text_models import TextModel, with_heads
from jaxalign.rollouts.pairs import sample_pairs, scored_pairs
from jaxalign.train.step import TrainState

OPPONENT = {"opponent": True}  # in the lines of the second samples


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
    kept = {"steps": settings.fit.updates, "responses": 2 * size}
    records = sample_records(run, name, judges, settings, **kept)
    evaluation = sampled_evaluation(
        run,
        (policy, policy),
        task,
        records,
        size=size,
        every=settings.fit.eval_every,
        updates=1,
    )
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
        steps_per_epoch=len(task.prompts) / size,
        evaluation=evaluation,
        prepare=_fresh_pairs(sampler, records, settings, run.key(f"{name}/samples")),
    )
    return policy.with_trained(params)


def _fresh_pairs(
    sampler: Sampler, records: SampleRecords, settings: OnlineSettings, samples: jax.Array
) -> Callable[[TrainState, PromptBatch], tuple[OnlineBatch, dict[str, Any]]]:
    """Two sampled and scored responses of the current policy to every prompt."""
    judges = records.judges
    learned = jax.jit(
        functools.partial(
            scored_pairs,
            missing_eos=settings.missing_eos_penalty,
            eos_id=judges.tokenizer.stop_ids,
        )
    )

    def prepare(state: TrainState, prompt_batch: PromptBatch) -> tuple[OnlineBatch, dict[str, Any]]:
        rows, index, number = prompt_batch
        clock = PhaseClock()
        batch, measured = sampler(state, jax.random.fold_in(samples, state.step), rows)
        clock.end("sampling")
        means = {
            metric: np.average(values, weights=batch.weights) for metric, values in measured.items()
        }
        batch, judged, scores = pairs_with_total_scores(judges, batch, index)
        clock.end("rewards")
        sides = batch.first.responses, batch.second.responses
        records(
            *(
                Drawn(step=number + 1, rows=side, index=index, judged=said, more=more)
                for side, said, more in zip(sides, judged, ({}, OPPONENT), strict=True)
            )
        )
        of_both = {"tokens": float(sum(int(side.mask.sum()) for side in sides))}
        lengths = response_metrics(sides[0], judges.tokenizer.stop_ids) | of_both
        return learned(batch), means | scores | lengths | clock.metrics

    return prepare


def pairs_with_total_scores(
    judges: Judges, batch: OnlineBatch, index: np.ndarray
) -> tuple[OnlineBatch, tuple[Judged, Judged], dict[str, float]]:
    """Pairs with the weighted sums of all sources' scores, what the sources said of each side, and
    metrics of the first side's scores.
    """
    both = batch.first, batch.second
    texts = [judges.texts(side.responses, index) for side in both]
    columns = [
        judges.columns(side.scores, of_side, index)
        for side, of_side in zip(both, texts, strict=True)
    ]
    totals = judges.totals(np.concatenate(columns), np.concatenate([index, index]))
    first, second = (
        Judged(of_side, judges.metrics(scores, of_side), scores, said)
        for of_side, scores, said in zip(np.split(totals, 2), columns, texts, strict=True)
    )
    sides: Any = first.totals, second.totals
    batch = dataclasses.replace(
        batch,
        first=dataclasses.replace(batch.first, scores=sides[0]),
        second=dataclasses.replace(batch.second, scores=sides[1]),
    )
    means = {
        "scores/mean": mean_score(first.totals),
        "scores/opponent": mean_score(second.totals),
    }
    return batch, (first, second), first.metrics | means
