"""Training stages: gradient steps on batches, iterations of sampling and learning."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import optax

from jaxalign.batches.functions import Metrics
from jaxalign.config.grpo import GRPOSettings
from jaxalign.config.loop import FitConfig, OptimizerConfig
from jaxalign.config.ppo import PPOSettings
from jaxalign.data.step_packing import packing_of
from jaxalign.recipes.fit_loop import Evaluation, Loop, fit_loop
from jaxalign.recipes.learner import Learner, keep_parts
from jaxalign.recipes.optimizer import learning_rates, optimizer_of, schedule_of
from jaxalign.recipes.run import Run
from jaxalign.recipes.step_metrics import StepFacts, training_flops
from jaxalign.train.step import TrainState, summed_step, train_step


def fit_batches(
    run: Run,
    name: str,
    learner: Learner,
    batches: Callable[[int], Any],
    *,
    settings: FitConfig,
    steps_per_epoch: float,
    prepare: Callable[[TrainState, Any], tuple[Any, Metrics]] | None = None,
    evaluation: Evaluation | None = None,
    tokens_per_step: int | None = None,
) -> Any:
    """Trained parameters after a gradient step on every batch, on the host.

    Args:
      name: as in `fit_loop`.
      learner: what is trained.
      batches: number of the batch -> global batch in NumPy.
      settings: of loop and optimizer.
      steps_per_epoch: in which all rows come once; may be broken.
      prepare: `(state, batch) -> (batch of the loss, metrics)`, before every update: samples of
        the parameters of that moment, and what frozen models say of them. None: the batch is that
        of the loss.
      evaluation, tokens_per_step: as in `Loop`.
    """
    optimizer = optimizer_of(settings.optimizer, settings.updates)
    step = _step_of(run, learner, optimizer, batches, settings)

    def prepared(state: TrainState, rows: Any) -> tuple[TrainState, Metrics]:
        batch, measured = prepare(state, rows) if prepare else (rows, {})
        state, metrics = step(state, batch)
        return state, measured | metrics  # packed texts have their own share of padding

    loop = Loop(
        update=prepared,
        batches=batches,
        steps=settings.updates,
        settings=settings,
        facts=step_facts(run, learner, settings.optimizer, settings.updates, steps_per_epoch),
        evaluation=evaluation,
        tokens_per_step=tokens_per_step,
        shown=learner.shown,
        layers=learner.layers,
    )
    keep_parts(run, name, learner)
    rates = schedule_of(settings.optimizer, settings.updates)
    return fit_loop(run, name, learner.state(run.key(name), optimizer, rates), loop)


def _step_of(
    run: Run,
    learner: Learner,
    optimizer: optax.GradientTransformation,
    batches: Callable[[int], Any],
    settings: FitConfig,
) -> Callable[[TrainState, Any], tuple[TrainState, Metrics]]:
    """Compiled step on a batch, whose texts are packed where that leaves out much padding."""
    plain = run.step(learner.step(train_step, optimizer), micro_batches=settings.micro_batches)
    if learner.packed is None or settings.micro_batches > 1:
        return plain
    pack = packing_of(
        batches,
        updates=settings.updates,
        parameters=_size(learner.params) + _size(learner.frozen),
        pad_id=learner.model.tokenizer.pad_id,
        of_texts=learner.packed.of_texts,
    )
    if pack is None:
        return plain
    of_packed = dataclasses.replace(learner, loss_fn=learner.packed.loss_fn)
    packed = run.step(of_packed.step(train_step, optimizer), micro_batches=1)

    def step(state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        texts = pack(batch)
        if texts is None:
            return plain(state, batch)
        state, metrics = packed(state, texts)
        return state, metrics | {"padding": texts.padding}

    return step


def fit_iterations(
    run: Run,
    name: str,
    learner: Learner,
    iteration: Callable[[Callable], Callable[[TrainState, Any], tuple[TrainState, Metrics]]],
    *,
    batches: Callable[[int], Any],
    settings: PPOSettings | GRPOSettings,
    steps_per_epoch: float,
    evaluation: Evaluation | None = None,
) -> Any:
    """Trained parameters after iterations of sampling and learning, on the host.

    Args:
      name: as in `fit_loop`.
      learner: what is trained.
      iteration: a compiled gradient step `(state, minibatch) -> (state, metric sums)` -> the
        iteration that takes several of them.
      batches: number of the iteration -> what it samples from.
      settings: of loop and optimizer.
      steps_per_epoch: iterations in which all prompts come once; may be broken.
      evaluation: along the way, every so many iterations.
    """
    updates = updates_of(settings)
    steps = settings.total_iterations * updates
    optimizer = optimizer_of(settings.optimizer, steps)
    facts = StepFacts(
        learning_rate=learning_rates(settings.optimizer, steps, updates=updates),
        steps_per_epoch=steps_per_epoch,
    )
    step = run.step(learner.step(summed_step, optimizer), micro_batches=settings.micro_batches)
    loop = Loop(
        update=iteration(step),
        batches=batches,
        steps=settings.total_iterations,
        settings=settings,
        facts=facts,
        evaluation=evaluation,
        shown=learner.shown,
        layers=learner.layers,
    )
    keep_parts(run, name, learner)
    rates = schedule_of(settings.optimizer, steps)
    return fit_loop(run, name, learner.state(run.key(name), optimizer, rates), loop)


def updates_of(settings: PPOSettings | GRPOSettings) -> int:
    """Number of gradient steps in an iteration."""
    return settings.update_epochs * settings.minibatches


def step_facts(
    run: Run,
    learner: Learner,
    optimizer: OptimizerConfig,
    total_steps: int,
    steps_per_epoch: float,
) -> StepFacts:
    """Facts of a loop of gradient steps, for their metrics."""
    flops = None
    if learner.reads_all:
        trained, frozen = (_size(tree) for tree in (learner.params, learner.frozen))
        flops = training_flops(parameters=trained + frozen, trained=trained)
    return StepFacts(
        learning_rate=learning_rates(optimizer, total_steps),
        steps_per_epoch=steps_per_epoch,
        flops_per_token=flops,
        devices=tuple(run.layout.devices),
    )


def _size(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def updates_left(run: Run, name: str, updates: int) -> int:
    """Number of updates left of a stage that an earlier run may have begun."""
    return updates - max(run.checkpoints(name).steps(), default=0)


def is_trained(run: Run, name: str, updates: int) -> bool:
    """Whether a stage has had all its updates, by a checkpoint that is whole: what only they need
    is left out then.
    """
    checkpoints = run.checkpoints(name)
    return updates in checkpoints.steps() and checkpoints.is_whole(updates)
