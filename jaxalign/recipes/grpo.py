"""GRPO and other policy gradients without a critic: groups of responses, scores, advantages."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxalign import objectives
from jaxalign.batches.experience import ResponseBatch
from jaxalign.batches.shared_prompts import one_a_row, responses_in_a_row, shared_batch
from jaxalign.config.grpo import GRPOSettings
from jaxalign.models.functions import text_decisions
from jaxalign.recipes.fit_loop import Evaluation
from jaxalign.recipes.learner import Objective
from jaxalign.recipes.prompts import PromptBatch, prompt_batches
from jaxalign.recipes.reward_sources import Judges, with_total_scores
from jaxalign.recipes.run import Run
from jaxalign.recipes.sample_evaluation import sampled_evaluation
from jaxalign.recipes.sample_metrics import (
    EqualGroups,
    PhaseClock,
    mean_advantages,
    response_metrics,
)
from jaxalign.recipes.sample_records import Drawn, SampleRecords, sample_records
from jaxalign.recipes.sampler import SAMPLE_METRICS, Sampler, TextTask, make_sampler
from jaxalign.recipes.stage import fit_iterations, updates_of
from jaxalign.recipes.step_model import step_model
from jaxalign.recipes.text_models import TextModel, with_heads
from jaxalign.rollouts.groups import GroupSamples, response_batch, sample_groups
from jaxalign.train.epochs import ppo_epochs_loop, selected_rows
from jaxalign.train.step import TrainState


def train_grpo(
    run: Run,
    name: str,
    policy: TextModel,
    task: TextTask,
    *,
    settings: GRPOSettings,
    evaluation: Evaluation | None = None,
) -> TextModel:
    """A policy trained by GRPO or another policy gradient without a critic.

    Args:
      policy: start and reference.
      task: prompts, reward and sampling.
      settings: method and loop.
      evaluation: along the way, every so many iterations; None: on the task's held-out prompts.
    """
    actor = with_heads(policy, ("logits",), run.key(f"{name}/init"), dropout=0.0)
    computed, reference = actor, policy
    if evaluation is None:  # which reads states as the policy has its parameters
        updates = settings.total_iterations * updates_of(settings)
        computed, reference = (step_model(x, run.layout, updates) for x in (actor, policy))
    judges = task.judges(run, name, policy.tokenizer, updates=settings.total_iterations)
    groups = groups_of(actor, settings, task.max_new_tokens, devices=len(run.layout.devices))
    collect = groups.samples(task, computed, reference, judges)
    sampler = make_sampler(run, collect, reference=reference, judges=judges)
    sizes = {"size": settings.prompts, "repeats": settings.group_size}
    sizes |= {"pad_id": policy.tokenizer.pad_id}
    kept = {"steps": settings.total_iterations, "responses": settings.batch_size}
    records = sample_records(run, name, judges, settings, **kept)
    if evaluation is None:
        loop = {"every": settings.eval_every, "updates": updates_of(settings)}
        size = settings.batch_size
        models = computed, reference
        evaluation = sampled_evaluation(run, models, task, records, size=size, **loop)
    params = fit_iterations(
        run,
        name,
        grpo_objective(task, computed, settings).learner(actor, computed),
        functools.partial(_iteration, sampler, records, groups),
        batches=prompt_batches(task.prompts, seed=run.seed, **sizes),
        settings=settings,
        steps_per_epoch=len(task.prompts) / settings.prompts,
        evaluation=evaluation,
    )
    return actor.with_trained(params)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupPlan:
    """Groups of responses to one prompt each, and their division into rows and minibatches.

    settings: method and sizes.
    together, in_a_row: of `shared_responses`.
    eos_id: the tokens that end a response.
    longest: response that sampling allows, in tokens.
    """

    settings: GRPOSettings
    together: int
    in_a_row: int
    eos_id: tuple[int, ...]
    longest: int

    def samples(
        self, task: TextTask, actor: TextModel, reference: TextModel, judges: Judges
    ) -> Callable[..., GroupSamples]:
        """Groups of responses of a policy, with scores and reference log-probabilities:
        `((policy, reference, reward parameters, key), prompts) -> GroupSamples`.
        """
        models = actor.model, reference.model, judges.model
        return sample_groups(*models, shared=self.in_a_row, **task.decoding(actor.tokenizer))

    def responses(self, samples: GroupSamples) -> tuple[ResponseBatch, dict[str, jax.Array]]:
        """All responses of an iteration with their advantages, a row each, and metrics."""
        return response_batch(
            samples,
            self.settings.method,
            group_size=self.settings.group_size,
            eos_id=self.eos_id,
            longest=self.longest,
        )

    def compared(self, samples: GroupSamples) -> tuple[Any, dict[str, jax.Array]]:
        """Batch for the objective, `[units, rows of a unit, ...]`, and metrics of the iteration."""
        batch, metrics = self.responses(samples)
        rows = shared_batch(batch, count=self.in_a_row, longest=self.longest)
        unit = self.together // self.in_a_row
        return jax.tree.map(lambda x: x.reshape(-1, unit, *x.shape[1:]), rows), metrics


def grpo_objective(task: TextTask, actor: TextModel, settings: GRPOSettings) -> Objective:
    """The policy-gradient loss of the chosen method on the responses of the task."""
    return Objective(
        read=text_decisions(actor.model, temperature=task.temperature),
        make_loss=functools.partial(
            objectives.group_policy_gradient, method=settings.method, length=task.max_new_tokens
        ),
        shown=SAMPLE_METRICS,
    )


def groups_of(actor: TextModel, settings: GRPOSettings, longest: int, *, devices: int) -> GroupPlan:
    """The group plan of a run on this number of devices."""
    together, in_a_row = shared_responses(settings, devices=devices)
    return GroupPlan(
        settings=settings,
        together=together,
        in_a_row=in_a_row,
        eos_id=actor.tokenizer.stop_ids,
        longest=longest,
    )


def shared_responses(settings: GRPOSettings, *, devices: int) -> tuple[int, int]:
    """Numbers of responses to one prompt in a unit of minibatches, and in a row of a batch.

    The first depends on the method's settings alone, so that minibatches hold the same responses
    wherever they are computed. It is one row if devices and micro-batches can share such rows out,
    and several of fewer responses otherwise.

    >>> from jaxalign.config.grpo import GRPOSettings
    >>> settings = GRPOSettings(prompts=4, group_size=8, minibatches=2, micro_batches=1)
    >>> [shared_responses(settings, devices=devices) for devices in (1, 2, 8)]
    [(8, 8), (8, 8), (8, 2)]
    """
    rows, minibatches = settings.batch_size, settings.minibatches
    together = responses_in_a_row(settings.group_size, rows=rows, parts=minibatches)
    parts = minibatches * settings.micro_batches * devices
    return together, responses_in_a_row(together, rows=rows, parts=parts)


def _iteration(
    sampler: Sampler, records: SampleRecords, groups: GroupPlan, step: Callable
) -> Callable[[TrainState, PromptBatch], tuple[TrainState, dict[str, Any]]]:
    """One iteration of sampling and learning."""
    compare, settings = jax.jit(groups.compared), groups.settings
    watch = EqualGroups(records.stage)

    def iterate(state: TrainState, prompt_batch: PromptBatch) -> tuple[TrainState, dict[str, Any]]:
        prompts, index, number = prompt_batch
        clock = PhaseClock()
        key = jax.random.fold_in(state.key, state.step)
        samples = sampler(state, key, prompts)
        clock.end("sampling")
        scored, judged = with_total_scores(records.judges, samples.scored, index)
        clock.end("rewards")
        batch, metrics = compare(dataclasses.replace(samples, scored=scored))
        state, learned = ppo_epochs_loop(
            state,
            batch,
            jax.random.fold_in(key, settings.batch_size),
            step=step,
            epochs=settings.update_epochs,
            minibatches=settings.minibatches,
            take=_minibatch,
        )
        rows, mask = scored.samples.batch, np.asarray(batch.mask).reshape(len(index), -1)
        advantages = mean_advantages(batch.advantages, mask)
        drawn = Drawn(step=number + 1, rows=rows, index=index, judged=judged, advantages=advantages)
        records(drawn)
        jax.block_until_ready(learned)
        clock.end("learning")
        watch(float(metrics["scores/equal_groups"]))
        measured = judged.metrics | response_metrics(rows, groups.eos_id) | clock.metrics
        return state, learned | metrics | measured

    return iterate


def _minibatch(units: Any, chosen: jax.Array) -> Any:
    return jax.tree.map(one_a_row, selected_rows(units, chosen))
