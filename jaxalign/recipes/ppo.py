"""PPO of a text policy: sampling, scores, KL penalty, advantages, clipped updates."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign import objectives
from jaxalign.batches.experience import Experience
from jaxalign.config.ppo import PPOSettings
from jaxalign.diagnostics import explained_variance
from jaxalign.kl import adapted_coef
from jaxalign.models.functions import text_policy
from jaxalign.recipes.fit_loop import Evaluation
from jaxalign.recipes.learner import Objective
from jaxalign.recipes.prompts import PromptBatch, prompt_batches
from jaxalign.recipes.reward_sources import Judges, with_total_scores
from jaxalign.recipes.run import Run
from jaxalign.recipes.sample_evaluation import sampled_evaluation
from jaxalign.recipes.sample_metrics import PhaseClock, mean_advantages, response_metrics
from jaxalign.recipes.sample_records import Drawn, SampleRecords, sample_records
from jaxalign.recipes.sampler import SAMPLE_METRICS, Sampler, TextTask, make_sampler
from jaxalign.recipes.stage import fit_iterations, updates_of
from jaxalign.recipes.text_models import TextModel, with_heads
from jaxalign.rollouts.text import (
    ScoredSamples,
    penalised_scores,
    sample_and_score,
    sample_metrics,
    text_experience,
)
from jaxalign.train.epochs import ppo_epochs_loop
from jaxalign.train.step import TrainState


def train_ppo(
    run: Run,
    name: str,
    policy: TextModel,
    task: TextTask,
    *,
    settings: PPOSettings,
    evaluation: Evaluation | None = None,
) -> TextModel:
    """A policy and its value function trained by PPO.

    Args:
      policy: start and reference.
      task: prompts, reward and sampling.
      settings: objective and loop.
      evaluation: along the way, every so many iterations; None: on the task's held-out prompts.
    """
    actor = with_heads(policy, ("logits", "value"), run.key(f"{name}/init"), dropout=0.0)
    judges = task.judges(run, name, policy.tokenizer, updates=settings.total_iterations)
    collect = ppo_samples(task, actor, policy, judges)
    sampler = make_sampler(run, collect, reference=policy, judges=judges)
    sizes = {"pad_id": policy.tokenizer.pad_id, "size": settings.batch_size}
    kept = {"steps": settings.total_iterations, "responses": settings.batch_size}
    records = sample_records(run, name, judges, settings, **kept)
    if evaluation is None:
        loop = {"every": settings.eval_every, "updates": updates_of(settings)}
        size = settings.batch_size
        evaluation = sampled_evaluation(run, (actor, policy), task, records, size=size, **loop)
    params = fit_iterations(
        run,
        name,
        ppo_objective(task, actor, settings).learner(actor),
        functools.partial(_iteration, sampler, records, settings),
        batches=prompt_batches(task.prompts, seed=run.seed, **sizes),
        settings=settings,
        steps_per_epoch=len(task.prompts) / settings.batch_size,
        evaluation=evaluation,
    )
    return actor.with_trained(params)


def ppo_samples(
    task: TextTask, actor: TextModel, reference: TextModel, judges: Judges
) -> Callable[..., ScoredSamples]:
    """Responses of a policy to prompts, with values, scores and reference log-probabilities:
    `((policy, reference, reward parameters, key), prompts) -> ScoredSamples`.
    """
    models = actor.model, reference.model, judges.model
    return sample_and_score(*models, **task.decoding(actor.tokenizer))


def ppo_objective(task: TextTask, actor: TextModel, settings: PPOSettings) -> Objective:
    """PPO's loss on the responses of the task; its statistics are the KL coefficient."""
    return Objective(
        read=text_policy(actor.model, temperature=task.temperature, last=task.max_new_tokens),
        make_loss=functools.partial(objectives.ppo, **ppo_terms(settings)),
        statistics=jnp.float32(settings.kl_coef),
        shown=SAMPLE_METRICS,
    )


def ppo_terms(settings: PPOSettings) -> dict[str, Any]:
    """Clipping and weights of the three terms of PPO's loss, as arguments of `objectives.ppo`."""
    names = ("clip_range", "dual_clip", "value_clip_range", "value_coef", "entropy_coef")
    return {name: getattr(settings, name) for name in names}


def _iteration(
    sampler: Sampler, records: SampleRecords, settings: PPOSettings, step: Callable
) -> Callable[[TrainState, PromptBatch], tuple[TrainState, dict[str, Any]]]:
    """One iteration of sampling and learning; the state's statistics are the KL coefficient."""
    judges = records.judges
    eos_id = judges.tokenizer.stop_ids
    assess = jax.jit(functools.partial(ppo_experience, settings=settings, eos_id=eos_id))

    def iterate(state: TrainState, prompt_batch: PromptBatch) -> tuple[TrainState, dict[str, Any]]:
        prompts, index, number = prompt_batch
        clock = PhaseClock()
        key = jax.random.fold_in(state.key, state.step)
        samples = sampler(state, key, prompts)
        clock.end("sampling")
        scored, judged = with_total_scores(judges, samples, index)
        clock.end("rewards")
        kl_coef = jnp.array(state.statistics)  # a copy, since the steps use up the state
        experience, metrics = assess(scored, kl_coef)
        state, learned = ppo_epochs_loop(
            state,
            experience,
            jax.random.fold_in(key, settings.batch_size),
            step=step,
            epochs=settings.update_epochs,
            minibatches=settings.minibatches,
        )
        rows, mask = scored.samples.batch, np.asarray(experience.mask)
        advantages = mean_advantages(experience.advantages, mask)
        drawn = Drawn(step=number + 1, rows=rows, index=index, judged=judged, advantages=advantages)
        records(drawn)
        if settings.kl_target is not None:
            adapted = adapted_coef(
                kl_coef,
                metrics["kl/reference"],
                target=settings.kl_target,
                horizon=settings.horizon,
                batch_size=settings.batch_size,
            )
            state = dataclasses.replace(state, statistics=adapted)
        jax.block_until_ready(learned)
        clock.end("learning")
        measured = judged.metrics | response_metrics(rows, eos_id) | clock.metrics
        return state, learned | metrics | measured | {"kl/coef": kl_coef}

    return iterate


def ppo_experience(
    scored: ScoredSamples,
    kl_coef: jax.Array,
    *,
    settings: PPOSettings,
    eos_id: int | tuple[int, ...],
) -> tuple[Experience, dict[str, jax.Array]]:
    """Experience from scored samples, and metrics of the iteration.

    Args:
      scored: samples of one iteration.
      kl_coef: KL coefficient, score units per nat.
      settings: discount, trace decay and the penalty for a missing EOS.
      eos_id: the token that ends a response, or all that do.
    """
    scores = penalised_scores(scored, penalty=settings.missing_eos_penalty, eos_id=eos_id)
    experience = text_experience(
        scored, scores, kl_coef=kl_coef, gamma=settings.gamma, gae_lambda=settings.gae_lambda
    )
    metrics = sample_metrics(scored, scored.samples.logps, eos_id=eos_id)
    explained = explained_variance(experience.values, experience.returns, experience.mask)
    return experience, metrics | {"ppo/explained_variance": explained}
