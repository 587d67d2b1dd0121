"""PPO of a text policy: sampling, scores, KL penalty, advantages, clipped updates."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxalign import objectives
from jaxalign.advantages import missing_eos_penalty
from jaxalign.batches.experience import Experience
from jaxalign.config.ppo import PPOSettings
from jaxalign.kl import adapted_coef
from jaxalign.models.functions import text_policy
from jaxalign.recipes.prompts import Asked, prompt_batches
from jaxalign.recipes.reward_sources import Judges, judged_samples
from jaxalign.recipes.run import Run
from jaxalign.recipes.sampler import Sampler, TextTask, make_sampler
from jaxalign.recipes.stage import Evaluation, Learner, fit_iterations
from jaxalign.recipes.text_models import TextModel, with_heads
from jaxalign.rollouts.text import ScoredSamples, sample_and_score, sample_metrics, text_experience
from jaxalign.train.epochs import ppo_epochs_loop
from jaxalign.train.step import LossFn, TrainState


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
      evaluation: along the way, every so many iterations.
    """
    actor = with_heads(policy, ("logits", "value"), run.key(f"{name}/init"), dropout=0.0)
    judges = task.judges(run, name, policy.tokenizer, updates=settings.total_iterations)
    models = actor.model, policy.model, judges.model
    collect = sample_and_score(*models, **task.decoding(actor.tokenizer))
    learner = Learner(
        params=actor.trained,
        frozen=actor.frozen,
        loss_fn=_loss(actor, task, settings),
        statistics=jnp.float32(settings.kl_coef),
    )
    sampler = make_sampler(run, collect, reference=policy, judges=judges)
    prompts = prompt_batches(
        run, task.prompts, pad_id=policy.tokenizer.pad_id, size=settings.batch_size
    )
    params = fit_iterations(
        run,
        name,
        learner,
        functools.partial(_iteration, sampler, judges, settings),
        batches=prompts,
        settings=settings,
        evaluation=evaluation,
    )
    return actor.with_trained(params)


def _loss(actor: TextModel, task: TextTask, settings: PPOSettings) -> LossFn:
    return objectives.ppo(
        text_policy(actor.model, temperature=task.temperature, last=task.max_new_tokens),
        clip_range=settings.clip_range,
        dual_clip=settings.dual_clip,
        value_clip_range=settings.value_clip_range,
        value_coef=settings.value_coef,
        entropy_coef=settings.entropy_coef,
    )


def _iteration(
    sampler: Sampler, judges: Judges, settings: PPOSettings, step: Callable
) -> Callable[[TrainState, Asked], tuple[TrainState, dict[str, Any]]]:
    """One iteration of sampling and learning; the state's statistics are the KL coefficient."""
    eos_id = judges.tokenizer.stop_ids
    assess = jax.jit(functools.partial(_assess, settings=settings, eos_id=eos_id))

    def iterate(state: TrainState, asked: Asked) -> tuple[TrainState, dict[str, Any]]:
        prompts, index = asked
        key = jax.random.fold_in(state.key, state.step)
        samples = sampler(state, key, prompts)
        scored, of_sources = judged_samples(judges, samples, index)
        kl_coef = jnp.array(state.statistics)  # a copy, since the steps use up the state
        experience, metrics = assess(scored, kl_coef)
        state, learned = ppo_epochs_loop(
            state,
            experience,
            jax.random.fold_in(key, settings.batch_size),
            step=step,
            epochs=settings.epochs,
            minibatches=settings.minibatches,
        )
        if settings.kl_target is not None:
            adapted = adapted_coef(
                kl_coef,
                metrics["kl/reference"],
                target=settings.kl_target,
                horizon=settings.horizon,
                batch_size=settings.batch_size,
            )
            state = dataclasses.replace(state, statistics=adapted)
        return state, learned | metrics | of_sources | {"kl/coef": kl_coef}

    return iterate


def _assess(
    scored: ScoredSamples,
    kl_coef: jax.Array,
    *,
    settings: PPOSettings,
    eos_id: int | tuple[int, ...],
) -> tuple[Experience, dict[str, jax.Array]]:
    """Experience from scored samples, and metrics of the iteration."""
    rows = scored.samples.batch
    mask = rows.response_mask
    penalty = settings.missing_eos_penalty
    scores = missing_eos_penalty(scored.scores, rows.tokens, mask, eos_id=eos_id, penalty=penalty)
    experience = text_experience(
        scored, scores, kl_coef=kl_coef, gamma=settings.gamma, gae_lambda=settings.gae_lambda
    )
    return experience, sample_metrics(scored, scored.samples.logps, eos_id=eos_id)
