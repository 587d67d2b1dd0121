"""Evaluation of a policy by sampling answers to prompts: scores, length, KL to a reference."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxalign.batches.tokens import TokenBatch
from jaxalign.data.batching import prompt_batch
from jaxalign.data.example_order import evaluation_batches
from jaxalign.data.scoring_batches import most_rows
from jaxalign.evaluation.bootstrap import mean_estimate, prompt_blocks
from jaxalign.layouts.layout import pad_rows, trim_rows
from jaxalign.recipes.fit_loop import Evaluation
from jaxalign.recipes.prompts import Prompts
from jaxalign.recipes.reward_sources import Judged, Judges, judges_of, mean_score
from jaxalign.recipes.run import Run
from jaxalign.recipes.sample_records import Drawn, SampleRecords, has_ended, sample_lines
from jaxalign.recipes.sampler import TextTask, make_sampler
from jaxalign.recipes.text_models import TextModel
from jaxalign.rollouts.text import sample_and_score
from jaxalign.train.evaluations import HELD_OUT
from jaxalign.train.step import TrainState

KEPT = 16  # held-out prompts, the first ones, whose responses are written to `samples.jsonl`
ANSWER_METRICS = ("scores/mean", "kl/reference", "response/length", "response/ended")
NOT_COUNTED = 10**9  # iterations that a run may have without a score, where nothing is learned


class Answered(NamedTuple):
    """Responses to prompts in the order of the prompts, in NumPy.

    rows: `[N, T]` prompts and responses.
    prompt_index: `[N]` which of the prompts each answers.
    judged: their scores.
    kl: `[N]` nats, log-ratio of policy and reference, summed over the response.
    """

    rows: TokenBatch
    prompt_index: np.ndarray
    judged: Judged
    kl: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptAnswers:
    """Sampling of answers to prompts, in passes of one shape.

    prompts: to answer.
    judges: of the answers.
    size: rows of a pass, at most.
    """

    prompts: Prompts
    judges: Judges
    size: int

    def __call__(self, collect: Callable[[TokenBatch], Any], *, repeats: int = 1) -> Answered:
        """Answers with their scores: `repeats` to each prompt, side by side.

        Args:
          collect: draws and scores responses to a batch of prompts; noise belongs to its index.
          repeats: responses to a prompt.
        """
        index = np.repeat(np.arange(len(self.prompts)), repeats)
        passes = math.ceil(len(index) / self.size)
        size, parts = math.ceil(len(index) / passes), []
        pad_id = self.judges.tokenizer.pad_id
        for places in evaluation_batches(len(index), size):
            ids = [self.prompts.ids[i] for i in index[places]]
            rows = prompt_batch(ids, pad_id=pad_id, length=self.prompts.longest, index=places)
            rows, real = pad_rows(rows, size)
            parts.append(trim_rows(collect(rows), real))
        scored = jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)
        rows = scored.samples.batch
        ratios = np.where(rows.response_mask, scored.samples.logps - scored.reference_logps, 0)
        return Answered(rows, index, self.judges(rows, scored.scores, index), ratios.sum(axis=1))


def sampled_evaluation(
    run: Run,
    policies: tuple[TextModel, TextModel],
    task: TextTask,
    records: SampleRecords,
    *,
    size: int,
    every: int | None,
    updates: int,
) -> Evaluation | None:
    """Evaluation on held-out prompts, one response to each; None where none are held out.

    All evaluations draw with the same noise, so that their curves compare. The responses to the
    first prompts are written to `samples.jsonl`.

    Args:
      policies: the trained one, and the reference.
      task: has the held-out prompts.
      records: of the stage.
      size: rows of a pass, at most.
      every: iterations between evaluations; None: at the end alone.
      updates: gradient steps of an iteration.
    """
    held_out, (actor, reference) = task.held_out, policies
    if not len(held_out):
        return None
    judges = judges_of(task.reward, actor.tokenizer, held_out, iterations=NOT_COUNTED)
    models = actor.model, reference.model, judges.model
    collect = sample_and_score(*models, **task.decoding(actor.tokenizer))
    sampler = make_sampler(run, collect, reference=reference, judges=judges)
    answers = PromptAnswers(prompts=held_out, judges=judges, size=size)
    key = run.key(f"{records.stage}/evaluation")

    def metrics(state: TrainState) -> dict[str, float]:
        answered = answers(lambda prompts: sampler(state, key, prompts))
        if records.every:
            first = first_answers(answered, KEPT, step=int(state.step) // updates)
            run.samples.write(sample_lines(records.stage, judges, first))
        return {f"{HELD_OUT}{name}": x for name, x in answer_metrics(answered, judges).items()}

    names = [f"{HELD_OUT}{name}" for name in metric_names(judges)]
    return Evaluation(metrics=metrics, every=every, sign=f"{HELD_OUT}scores/mean", names=names)


def first_answers(answered: Answered, count: int, *, step: int) -> Drawn:
    """The first answers, for `samples.jsonl`."""
    rows, judged = trim_rows(answered.rows, count), answered.judged
    texts = judged.texts and judged.texts[:count]
    judged = Judged(judged.totals[:count], {}, judged.columns[:count], texts)
    index = answered.prompt_index[:count]
    return Drawn(step=step, rows=rows, index=index, judged=judged, more={"evaluation": True})


def answer_metrics(answered: Answered, judges: Judges) -> dict[str, float]:
    """Means over answers: scores, KL to the reference, length, share that ended."""
    numbers = answer_numbers(answered, judges)
    return answered.judged.metrics | {name: mean_score(x) for name, x in numbers.items()}


def metric_names(judges: Judges) -> list[str]:
    """Names of the metrics that `answer_metrics` has, before there is any answer."""
    columns = np.zeros((1, len(judges.sources)))
    return [*judges.metrics(columns, columns.sum(axis=1)), *ANSWER_METRICS]


def answer_numbers(answered: Answered, judges: Judges) -> dict[str, np.ndarray]:
    """`[N]` numbers of each answer, by the metrics that are their means; NaN: no score."""
    numbers = (
        answered.judged.totals,
        answered.kl,
        np.asarray(answered.rows.response_mask).sum(axis=1),
        has_ended(answered.rows, judges.tokenizer.stop_ids),
    )
    return {
        name: values.astype(np.float64)
        for name, values in zip(ANSWER_METRICS, numbers, strict=True)
    }


def answers_of(
    run: Run,
    policy: TextModel,
    task: TextTask,
    *,
    reference: TextModel | None,
    samples: int,
    seed: int,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Measures of a policy's sampled answers with their 95% intervals over prompts, and the answers
    as lines of `samples.jsonl`.

    Args:
      task: prompts and rewards.
      reference: what the KL is measured to; None: it is not.
      samples: answers to each prompt.
      seed: of the answers.
    """
    judges = judges_of(task.reward, policy.tokenizer, task.prompts)
    frozen = reference or policy
    models = policy.model, frozen.model, judges.model
    collect = run.layout.rows(sample_and_score(*models, **task.decoding(policy.tokenizer)))
    trees = run.layout.place((policy.params, frozen.params, judges.params))
    shared = (*trees, jax.random.key(seed))
    length = task.prompts.longest + task.max_new_tokens
    size = most_rows(length)
    answers = PromptAnswers(prompts=task.prompts, judges=judges, size=size)
    answered = answers(lambda prompts: collect(shared, prompts), repeats=samples)
    blocks = prompt_blocks([judges.asked[number] for number in answered.prompt_index])
    numbers = answer_numbers(answered, judges)
    columns = {"score": numbers["scores/mean"]}
    if len(judges.sources) > 1:
        named = zip(judges.sources, answered.judged.columns.T, strict=True)
        columns |= {f"score/{source.name}": scores for source, scores in named}
    columns |= {"length": numbers["response/length"], "ended": numbers["response/ended"]}
    if reference is not None:
        columns["kl"] = numbers["kl/reference"]
    measures: dict[str, Any] = {}
    for name, values in columns.items():
        there = ~np.isnan(values)
        measures |= mean_estimate(values[there], blocks=blocks[there]).columns(name)
    drawn = Drawn(step=0, rows=answered.rows, index=answered.prompt_index, judged=answered.judged)
    return measures, list(sample_lines("evaluate", judges, drawn))
