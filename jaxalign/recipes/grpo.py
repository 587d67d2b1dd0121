"""Critic-free policy gradients on text: sample groups, score, compare, learn."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxalign import objectives
from jaxalign.batches.shared_prompts import one_a_row, responses_in_a_row, shared_batch
from jaxalign.batches.tokens import TokenBatch
from jaxalign.config.grpo import GRPOSettings
from jaxalign.data.records import PromptRow
from jaxalign.models.functions import text_decisions
from jaxalign.recipes.iterations import fit_rounds, prompt_batches, rounds_left
from jaxalign.recipes.reward_sources import Reward, judged_samples, judges_of
from jaxalign.recipes.run import Run, optimizer_of
from jaxalign.recipes.text_models import TextModel, with_heads
from jaxalign.rollouts.groups import response_batch, sample_groups
from jaxalign.train.epochs import ppo_epochs_loop, selected_rows
from jaxalign.train.step import TrainState, initial_state, summed_step


def train_grpo(
    run: Run,
    name: str,
    policy: TextModel,
    reward: Reward,
    prompts: Sequence[Sequence[int]],
    settings: GRPOSettings,
    *,
    temperature: float,
    max_new_tokens: int,
    evaluate: Callable[[Any], dict[str, float]] | None = None,
    evaluate_every: int | None = None,
    records: Sequence[PromptRow] | None = None,
) -> TextModel:
    """A policy gradient from the policy, which is the reference, resuming where an earlier run
    stopped.

    Args:
      policy: start and reference.
      reward: scores prompt and response together: a reward model, a function, or several with
        weights.
      prompts: token ids, BOS included; dealt out in random order.
      settings: method and loop.
      temperature: of policy and reference, in sampling and training.
      max_new_tokens: longest response.
      evaluate: metrics of some parameters, every `evaluate_every` iterations.
      records: the rows of the prompts, whose text and columns reward functions get; None: they get
        the prompts decoded.
    """
    actor = with_heads(policy, ("logits",), run.key(f"{name}/init"), dropout=0.0)
    left = rounds_left(run, name, settings.total_iterations)
    judges = judges_of(reward, policy.tokenizer, prompts, records, rounds=left)
    optimizer = optimizer_of(
        settings.optimizer, settings.total_iterations * settings.epochs * settings.minibatches
    )
    shared = shared_responses(settings, devices=len(run.layout.devices))
    sampling = {"temperature": temperature, "max_new_tokens": max_new_tokens, "shared": shared}
    state = fit_rounds(
        run,
        name,
        initial_state(actor.trained, optimizer, run.key(name), frozen=actor.frozen),
        _iteration(run, actor, policy, judges, optimizer, settings, **sampling),
        prompt_batches(
            run,
            prompts,
            policy.tokenizer.pad_id,
            size=settings.prompts,
            repeats=settings.group_size,
        ),
        settings,
        evaluate=None if evaluate is None else lambda state: evaluate(state.all_params),
        evaluate_every=evaluate_every,
    )
    return actor.with_trained(jax.device_get(state.params))


def shared_responses(settings: GRPOSettings, *, devices: int) -> tuple[int, int]:
    """How many responses to a prompt stay together in a minibatch, and how many of them in a row.

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
    run, actor, reference, judges, optimizer, settings, *, temperature, max_new_tokens, shared
):
    """`(TrainState, (prompts, numbers)) -> (TrainState, metrics)`: one round of sampling and
    learning, on responses that are `shared_responses`.
    """
    eos_id, method = actor.tokenizer.stop_ids, settings.method
    together, in_a_row = shared
    collect = run.layout.rows(
        sample_groups(
            actor.model,
            reference.model,
            judges.model,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            eos_id=eos_id,
            shared=in_a_row,
        )
    )
    loss = objectives.group_policy_gradient(
        text_decisions(actor.model, temperature=temperature), method, length=max_new_tokens
    )
    step = run.step(
        functools.partial(summed_step, loss_fn=loss, optimizer=optimizer),
        micro_batches=settings.micro_batches,
    )

    @jax.jit
    def compare(samples):
        groups = {"group_size": settings.group_size, "eos_id": eos_id}
        batch, metrics = response_batch(samples, method, longest=max_new_tokens, **groups)
        rows = shared_batch(batch, count=in_a_row, longest=max_new_tokens)
        unit = together // in_a_row
        return jax.tree.map(lambda x: x.reshape(-1, unit, *x.shape[1:]), rows), metrics

    def minibatch(units, chosen):
        return jax.tree.map(one_a_row, selected_rows(units, chosen))

    initial, judge = run.layout.place(reference.trained), run.layout.place(judges.params)

    def iterate(state: TrainState, asked: tuple[TokenBatch, np.ndarray]):
        prompts, numbers = asked
        key = jax.random.fold_in(state.key, state.step)
        policies = state.all_params, state.completed(initial)
        samples = collect((*policies, judge, key), prompts)
        scored, of_sources = judged_samples(judges, samples.scored, numbers)
        batch, metrics = compare(dataclasses.replace(samples, scored=scored))
        state, learned = ppo_epochs_loop(
            state,
            batch,
            jax.random.fold_in(key, settings.batch_size),
            step=step,
            epochs=settings.epochs,
            minibatches=settings.minibatches,
            take=minibatch,
        )
        return state, learned | metrics | of_sources

    return iterate
