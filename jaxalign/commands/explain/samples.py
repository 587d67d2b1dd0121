"""Batches of PPO and of group methods: responses sampled for prompts of the data, and scored."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxalign.commands.explain.batch import (
    Prepared,
    new_head_key,
    optimizer_of_updates,
    other_policy,
    policy_of,
    refuse_empty,
)
from jaxalign.config.explain import ExplainConfig
from jaxalign.config.grpo import GRPOSettings
from jaxalign.config.ppo import PPOSettings
from jaxalign.explanation import explain_decisions, explain_responses
from jaxalign.recipes.grpo import groups_of, grpo_objective
from jaxalign.recipes.iterations import text_task
from jaxalign.recipes.ppo import ppo_experience, ppo_objective, ppo_samples, ppo_terms
from jaxalign.recipes.prompts import prompt_batches
from jaxalign.recipes.reward_sources import judges_of, with_total_scores
from jaxalign.recipes.run import key_of
from jaxalign.recipes.sampler import TextTask
from jaxalign.recipes.text_models import TextModel, with_heads
from jaxalign.rollouts.groups import learned_scores
from jaxalign.rollouts.text import ScoredSamples, penalised_scores, reference_kl, token_rewards
from jaxalign.train.checks import watched_decisions, watched_ratios
from jaxalign.train.epochs import minibatch


def sampled(
    config: ExplainConfig,
    policy: TextModel,
    task: TextTask,
    samples_of: Callable[..., Any],
    *,
    repeats: int = 1,
) -> tuple[Any, Callable[[ScoredSamples], ScoredSamples]]:
    """Sampled responses to a batch of prompts, and the function that scores them by all rewards.

    The prompts and the draws are those of a run with this seed, if the behaviour policy is the one
    that the run has reached.

    Args:
      config: names the behaviour policy, the reference, and the batch.
      policy: stands for both where the configuration names none.
      task: prompts, rewards and sampling.
      samples_of: of a recipe: `(task, behaviour, reference, judges)` to
        `((policy, reference, reward parameters, key), prompts) -> samples`.
      repeats: responses to each prompt, in rows side by side.
    """
    behaviour = other_policy(config, "behaviour", policy)
    reference = other_policy(config, "reference", policy)
    heads = policy.model.config.heads_out
    if behaviour.model.config.heads_out != heads:
        behaviour = with_heads(behaviour, heads, new_head_key(config))
    refuse_empty(config, task.prompts.ids, "prompts")
    judges = judges_of(task.reward, policy.tokenizer, task.prompts, iterations=1)
    dealt = {"pad_id": policy.tokenizer.pad_id, "size": config.rows, "repeats": repeats}
    rows, index, _ = prompt_batches(task.prompts, seed=config.seed, **dealt)(config.batch)
    collect = jax.jit(samples_of(task, behaviour, reference, judges))
    models = behaviour.params, reference.params, judges.params
    samples = collect((*models, sampling_key(config)), rows)
    return samples, lambda scored: with_total_scores(judges, scored, index)[0]


def sampling_key(config: ExplainConfig) -> jax.Array:
    """Random key that a run with this seed samples the batch with."""
    settings: PPOSettings | GRPOSettings = getattr(config, config.method)
    updates = config.batch * settings.update_epochs * settings.minibatches  # before that iteration
    return jax.random.fold_in(key_of(config.seed, config.method), updates)


def decisions(config: ExplainConfig) -> Prepared:
    """Batch of PPO, from responses sampled for prompts of the data."""
    policy, settings = policy_of(config), config.ppo
    task = text_task(config, policy)
    samples, judged = sampled(config, policy, task, ppo_samples)
    scored, eos_id = judged(samples), policy.tokenizer.stop_ids
    objective = ppo_objective(task, policy, settings)
    kl_coef = objective.statistics
    experience, _ = ppo_experience(scored, kl_coef, settings=settings, eos_id=eos_id)
    scores = penalised_scores(scored, penalty=settings.missing_eos_penalty, eos_id=eos_id)
    recorded = {
        "reference": scored.reference_logps,
        "KL": reference_kl(scored, scored.samples.logps),
        "reward": token_rewards(scored, scores, kl_coef=kl_coef),
    }
    terms = ppo_terms(settings)
    return Prepared(
        policy=policy,
        batch=minibatch(experience, jnp.arange(len(experience.index))),
        objective=objective,
        explain=functools.partial(
            explain_decisions,
            clip={name: terms[name] for name in ("clip_range", "dual_clip")},
            value_clip_range=terms["value_clip_range"],
            recorded=recorded,
        ),
        optimizer=optimizer_of_updates(policy, settings.optimizer, "ppo"),
        watch=watched_ratios,
    )


def groups(config: ExplainConfig) -> Prepared:
    """Batch of a policy gradient without a critic, from groups of responses to the same prompts."""
    policy, settings = policy_of(config), config.grpo
    method, task = settings.method, text_task(config, policy)
    plan = groups_of(policy, settings, task.max_new_tokens, devices=1)
    plan = dataclasses.replace(plan, together=1, in_a_row=1)  # a response is explained as a row
    samples, judged = sampled(config, policy, task, plan.samples, repeats=settings.group_size)
    samples = dataclasses.replace(samples, scored=judged(samples.scored))
    batch, _ = plan.responses(samples)
    learned = learned_scores(samples, method, eos_id=plan.eos_id, longest=plan.longest)
    return Prepared(
        policy=policy,
        batch=batch,
        objective=grpo_objective(task, policy, settings),
        explain=functools.partial(
            explain_responses,
            method=method,
            recorded={"KL": reference_kl(samples.scored, samples.behaviour_logps)},
            totals={"score": samples.scored.scores, "learned score": learned},
        ),
        optimizer=optimizer_of_updates(policy, settings.optimizer, "grpo"),
        watch=lambda model: watched_decisions(model, batch),
    )
