"""Batches of the methods that learn from responses that a policy samples: PPO and GRPO."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign import objectives
from jaxalign.advantages import missing_eos_penalty, shaped_rewards
from jaxalign.commands.explain.batch import (
    Prepared,
    chosen_rows,
    frozen,
    optimizer_of_updates,
    policy_of,
)
from jaxalign.config.explain import ExplainConfig
from jaxalign.data.batching import prompt_batch
from jaxalign.explanation import explain_decisions, explain_responses
from jaxalign.kl import k1
from jaxalign.models.functions import text_decisions, text_policy
from jaxalign.numerics.types import Tree
from jaxalign.recipes.iterations import read_prompts
from jaxalign.recipes.reward_sources import judges_of, load_sources, with_total_scores
from jaxalign.recipes.text_models import TextModel, with_heads
from jaxalign.recipes.user_data import with_max_length
from jaxalign.rollouts.groups import learned_scores, response_batch, sample_groups
from jaxalign.rollouts.text import sample_and_score, text_experience
from jaxalign.train.checks import watched_decisions, watched_ratios
from jaxalign.train.epochs import minibatch


def sampled(
    config: ExplainConfig, policy: TextModel, sample_from: Callable[..., Any], *, repeats: int = 1
):
    """Responses to prompts of the data, and `ScoredSamples -> (ScoredSamples, metrics)` by which
    all judges have their say.

    Args:
      config: says who samples, who scores, and from which prompts.
      policy: stands for a behaviour policy or a reference that is not given.
      sample_from: `sample_and_score`, or `sample_groups`.
      repeats: responses to each prompt, in rows side by side.
    """
    behaviour, reference = (frozen(config, name, policy) for name in ("behaviour", "reference"))
    heads = policy.model.config.heads_out
    if behaviour.model.config.heads_out != heads:
        behaviour = with_heads(behaviour, heads, jax.random.key(config.seed))
    tokenizer = policy.tokenizer
    sources = load_sources(config.reward, config.rewards)
    prompts = read_prompts(with_max_length(config.data, policy), sources, tokenizer, log=None)
    judges = judges_of(sources, tokenizer, prompts, iterations=1)
    chosen, index = chosen_rows(config, prompts.ids, "prompts")
    ids = [prompt for prompt in chosen for _ in range(repeats)]
    collect = sample_from(
        behaviour.model,
        reference.model,
        judges.model,
        temperature=config.temperature,
        max_new_tokens=config.max_new_tokens,
        eos_id=tokenizer.stop_ids,
    )
    key = jax.random.fold_in(jax.random.key(config.seed), config.batch)
    shared = (behaviour.params, reference.params, judges.params, key)
    samples = jax.jit(collect)(shared, prompt_batch(ids, pad_id=tokenizer.pad_id))
    return samples, functools.partial(with_total_scores, judges, index=np.repeat(index, repeats))


def decisions(config: ExplainConfig) -> Prepared:
    """PPO on responses sampled for prompts of the data."""
    policy = policy_of(config)
    tokenizer, settings = policy.tokenizer, config.ppo
    samples, judged = sampled(config, policy, sample_and_score)
    scored, _ = judged(samples)
    rows = scored.samples.batch
    scores = missing_eos_penalty(
        scored.scores,
        rows.tokens,
        rows.response_mask,
        eos_id=tokenizer.stop_ids,
        penalty=settings.missing_eos_penalty,
    )
    shaping = {"kl_coef": settings.kl_coef}
    batch = text_experience(
        scored, scores, gamma=settings.gamma, gae_lambda=settings.gae_lambda, **shaping
    )
    batch = minibatch(batch, jnp.arange(len(rows.tokens)))
    kl = k1(scored.samples.logps, scored.reference_logps)
    recorded = {
        "reference": scored.reference_logps,
        "KL": kl,
        "reward": shaped_rewards(scores, kl, batch.mask, **shaping),
    }
    clip = {"clip_range": settings.clip_range, "dual_clip": settings.dual_clip}
    values = {"value_clip_range": settings.value_clip_range}
    make_loss = functools.partial(
        objectives.ppo,
        value_coef=settings.value_coef,
        entropy_coef=settings.entropy_coef,
        **clip,
        **values,
    )
    model = text_policy(policy.model, temperature=config.temperature)

    def explain(state: Tree, key: jax.Array):
        return explain_decisions(
            make_loss, model, state.params, batch, clip=clip, recorded=recorded, key=key, **values
        )

    return Prepared(
        tokenizer=tokenizer,
        params=policy.params,
        batch=batch,
        model=model,
        make_loss=make_loss,
        explain=explain,
        optimizer=optimizer_of_updates(policy, settings.optimizer, "ppo"),
        watch=watched_ratios,
    )


def groups(config: ExplainConfig) -> Prepared:
    """A critic-free policy gradient on groups of responses to prompts of the data."""
    policy = policy_of(config)
    tokenizer, settings = policy.tokenizer, config.grpo
    method = settings.method
    limits = {"eos_id": tokenizer.stop_ids, "longest": config.max_new_tokens}
    samples, judged = sampled(config, policy, sample_groups, repeats=settings.group_size)
    samples = dataclasses.replace(samples, scored=judged(samples.scored)[0])
    batch, _ = response_batch(samples, method, group_size=settings.group_size, **limits)
    scores = {
        "score": samples.scored.scores,
        "learned score": learned_scores(samples, method, **limits),
    }
    recorded = {"KL": k1(samples.behaviour_logps, samples.scored.reference_logps)}
    make_loss = functools.partial(
        objectives.group_policy_gradient, method=method, length=config.max_new_tokens
    )
    model = text_decisions(policy.model, temperature=config.temperature)

    def explain(state: Tree, key: jax.Array):
        shown = {"method": method, "recorded": recorded, "totals": scores}
        return explain_responses(make_loss, model, state.params, batch, key=key, **shown)

    return Prepared(
        tokenizer=tokenizer,
        params=policy.params,
        batch=batch,
        model=model,
        make_loss=make_loss,
        explain=explain,
        optimizer=optimizer_of_updates(policy, settings.optimizer, "grpo"),
        watch=lambda model: watched_decisions(model, batch),
    )
