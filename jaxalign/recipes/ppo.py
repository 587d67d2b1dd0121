"""PPO of a text policy against what judges it: sample, score, shape, estimate, learn."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign import objectives
from jaxalign.advantages import missing_eos_penalty
from jaxalign.batches.tokens import TokenBatch, pytree
from jaxalign.config.ppo import PPOSettings
from jaxalign.data.records import PromptRow
from jaxalign.kl import adapted_coef
from jaxalign.models.functions import text_policy
from jaxalign.recipes.iterations import fit_rounds, prompt_batches, rounds_left
from jaxalign.recipes.reward_sources import Reward, judged_samples, judges_of
from jaxalign.recipes.run import Run, optimizer_of
from jaxalign.recipes.text_models import TextModel, with_heads
from jaxalign.rollouts.text import ScoredSamples, sample_and_score, sample_metrics, text_experience
from jaxalign.train.epochs import ppo_epochs_loop
from jaxalign.train.step import TrainState, initial_state, summed_step


@pytree
class PPOState:
    """What PPO changes: the training state and the price of a nat of KL."""

    train: TrainState
    kl_coef: jax.Array


def train_ppo(
    run: Run,
    name: str,
    policy: TextModel,
    reward: Reward,
    prompts: Sequence[Sequence[int]],
    settings: PPOSettings,
    *,
    temperature: float,
    max_new_tokens: int,
    evaluate: Callable[[Any], dict[str, float]] | None = None,
    evaluate_every: int | None = None,
    records: Sequence[PromptRow] | None = None,
) -> TextModel:
    """PPO from the policy, which is the reference, resuming where an earlier run stopped.

    Args:
      policy: start and reference.
      reward: scores prompt and response together: a reward model, a function, or several with
        weights.
      prompts: token ids, BOS included; dealt out in random order.
      settings: objective and loop.
      temperature: of policy and reference, in sampling and training.
      max_new_tokens: longest response.
      evaluate: metrics of some parameters, every `evaluate_every` iterations.
      records: the rows of the prompts, whose text and columns reward functions get; None: they get
        the prompts decoded.
    """
    actor = with_heads(policy, ("logits", "value"), run.key(f"{name}/init"), dropout=0.0)
    left = rounds_left(run, name, settings.total_iterations)
    judges = judges_of(reward, policy.tokenizer, prompts, records, rounds=left)
    optimizer = optimizer_of(
        settings.optimizer, settings.total_iterations * settings.epochs * settings.minibatches
    )
    state = PPOState(
        train=initial_state(actor.trained, optimizer, run.key(name), frozen=actor.frozen),
        kl_coef=jnp.float32(settings.kl_coef),
    )
    state = fit_rounds(
        run,
        name,
        state,
        _iteration(run, actor, policy, judges, optimizer, settings, temperature, max_new_tokens),
        prompt_batches(run, prompts, policy.tokenizer.pad_id, size=settings.batch_size),
        settings,
        evaluate=None if evaluate is None else lambda state: evaluate(state.train.all_params),
        evaluate_every=evaluate_every,
    )
    return actor.with_trained(jax.device_get(state.train.params))


def _iteration(run, actor, reference, judges, optimizer, settings, temperature, max_new_tokens):
    """`(PPOState, (prompts, numbers)) -> (PPOState, metrics)`: one round of sampling and
    learning.
    """
    eos_id = actor.tokenizer.stop_ids
    collect = run.layout.rows(
        sample_and_score(
            actor.model,
            reference.model,
            judges.model,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            eos_id=eos_id,
        )
    )
    loss = objectives.ppo(
        text_policy(actor.model, temperature=temperature, last=max_new_tokens),
        clip_range=settings.clip_range,
        dual_clip=settings.dual_clip,
        value_clip_range=settings.value_clip_range,
        value_coef=settings.value_coef,
        entropy_coef=settings.entropy_coef,
    )
    step = run.step(
        functools.partial(summed_step, loss_fn=loss, optimizer=optimizer),
        micro_batches=settings.micro_batches,
    )
    assess = jax.jit(functools.partial(_assess, settings=settings, eos_id=eos_id))

    initial, judge = run.layout.place(reference.trained), run.layout.place(judges.params)

    def iterate(state: PPOState, asked: tuple[TokenBatch, np.ndarray]):
        prompts, numbers = asked
        key = jax.random.fold_in(state.train.key, state.train.step)
        policies = state.train.all_params, state.train.completed(initial)
        samples = collect((*policies, judge, key), prompts)
        scored, of_sources = judged_samples(judges, samples, numbers)
        experience, metrics = assess(scored, state.kl_coef)
        train, learned = ppo_epochs_loop(
            state.train,
            experience,
            jax.random.fold_in(key, settings.batch_size),
            step=step,
            epochs=settings.epochs,
            minibatches=settings.minibatches,
        )
        kl_coef = state.kl_coef
        if settings.kl_target is not None:
            kl_coef = adapted_coef(
                kl_coef,
                metrics["kl/reference"],
                target=settings.kl_target,
                horizon=settings.horizon,
                batch_size=settings.batch_size,
            )
        return PPOState(train=train, kl_coef=kl_coef), learned | metrics | of_sources

    return iterate


def _assess(
    scored: ScoredSamples, kl_coef, *, settings: PPOSettings, eos_id: int | tuple[int, ...]
):
    """Experience from scored samples, and metrics of the round."""
    rows = scored.samples.batch
    mask = rows.response_mask
    penalty = settings.missing_eos_penalty
    scores = missing_eos_penalty(scored.scores, rows.tokens, mask, eos_id=eos_id, penalty=penalty)
    experience = text_experience(
        scored, scores, kl_coef=kl_coef, gamma=settings.gamma, gae_lambda=settings.gae_lambda
    )
    metrics = sample_metrics(scored, scored.samples.logps, eos_id=eos_id)
    return experience, metrics | {"kl/coef": kl_coef}
