"""PPO of a text policy against what judges it: sample, score, shape, estimate, learn."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxalign import objectives
from jaxalign.batches.experience import Experience
from jaxalign.config.ppo import PPOSettings
from jaxalign.kl import adapted_coef
from jaxalign.models.functions import text_policy
from jaxalign.recipes.prompts import Asked, Prompts, prompt_batches
from jaxalign.recipes.reward_sources import Judges, Reward, judged_samples, judges_of
from jaxalign.recipes.run import Run
from jaxalign.recipes.sampler import Sampler, make_sampler
from jaxalign.recipes.stage import Evaluation, Objective, fit_iterations, updates_left
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
    *,
    reward: Reward,
    prompts: Prompts,
    settings: PPOSettings,
    temperature: float,
    max_new_tokens: int,
    evaluation: Evaluation | None = None,
) -> TextModel:
    """PPO from the policy, which is the reference, resuming where an earlier run stopped.

    Args:
      policy: start and reference.
      reward: scores prompt and response together: a reward model, a function, or several with
        weights.
      prompts: dealt out in random order.
      settings: objective and loop.
      temperature: of policy and reference, in sampling and training.
      max_new_tokens: longest response.
      evaluation: along the way, every so many iterations.
    """
    actor = with_heads(policy, ("logits", "value"), run.key(f"{name}/init"), dropout=0.0)
    left = updates_left(run, name, settings.total_iterations)
    judges = judges_of(reward, policy.tokenizer, prompts, iterations=left)
    decoding = {"temperature": temperature, "max_new_tokens": max_new_tokens}
    collect = ppo_samples(actor, policy, judges, **decoding)
    sampler = make_sampler(run, collect, reference=policy, judges=judges)
    pad_id, size = policy.tokenizer.pad_id, settings.batch_size
    params = fit_iterations(
        run,
        name,
        ppo_objective(actor, settings, **decoding).learner(actor),
        functools.partial(_iteration, sampler, judges, settings),
        batches=prompt_batches(prompts, seed=run.seed, pad_id=pad_id, size=size),
        settings=settings,
        evaluation=evaluation,
    )
    return actor.with_trained(params)


def ppo_samples(
    actor: TextModel,
    reference: TextModel,
    judges: Judges,
    *,
    temperature: float,
    max_new_tokens: int,
) -> Callable[..., ScoredSamples]:
    """Responses of a policy to prompts, with values, scores and reference log-probabilities:
    `((policy, reference, reward parameters, key), prompts) -> ScoredSamples`.
    """
    return sample_and_score(
        *(actor.model, reference.model, judges.model),
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        eos_id=actor.tokenizer.stop_ids,
    )


def ppo_objective(
    actor: TextModel, settings: PPOSettings, *, temperature: float, max_new_tokens: int
) -> Objective:
    """PPO's loss on the last tokens of rows; its statistics are the KL coefficient."""
    return Objective(
        read=text_policy(actor.model, temperature=temperature, last=max_new_tokens),
        make_loss=functools.partial(objectives.ppo, **ppo_terms(settings)),
        statistics=jnp.float32(settings.kl_coef),
    )


def ppo_terms(settings: PPOSettings) -> dict[str, Any]:
    """Clipping and weights of the three terms of PPO's loss, as arguments of `objectives.ppo`."""
    names = ("clip_range", "dual_clip", "value_clip_range", "value_coef", "entropy_coef")
    return {name: getattr(settings, name) for name in names}


def _iteration(
    sampler: Sampler, judges: Judges, settings: PPOSettings, step: Callable
) -> Callable[[TrainState, Asked], tuple[TrainState, dict[str, Any]]]:
    """One iteration of sampling and learning; the state's statistics are the KL coefficient."""
    eos_id = judges.tokenizer.stop_ids
    assess = jax.jit(functools.partial(ppo_experience, settings=settings, eos_id=eos_id))

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
    return experience, sample_metrics(scored, scored.samples.logps, eos_id=eos_id)
