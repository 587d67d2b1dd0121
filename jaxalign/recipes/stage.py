"""Training loops of all methods: gradient steps on batches, iterations of sampling and learning."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import optax

from jaxalign.batches.functions import BatchSums, LossFn, Metrics
from jaxalign.config.defaults import filled_optimizer
from jaxalign.config.grpo import GRPOSettings
from jaxalign.config.loop import FitConfig, OptimizerConfig
from jaxalign.config.ppo import PPOSettings
from jaxalign.recipes.run import Run
from jaxalign.recipes.text_models import TextModel
from jaxalign.train.loop import fit
from jaxalign.train.optimizers import Rates, make_optimizer, rates_of
from jaxalign.train.step import Track, TrainState, initial_state, summed_step, train_step


@dataclasses.dataclass(frozen=True, kw_only=True)
class Learner:
    """Trained and frozen parameters, and the loss that gradient steps lower.

    params: trained parameters at the start.
    loss_fn: of an objective.
    frozen: parameters that the loss reads beside them; None: there are none.
    statistics, track: running statistics of the loss, as in `train_step`; saved in checkpoints.
    measure: sums over a whole batch that the loss reads, as in `train_step`.
    """

    params: Any
    loss_fn: LossFn
    frozen: dict | None = None
    statistics: Any = None
    track: Track | None = None
    measure: BatchSums | None = None

    def state(
        self, key: jax.Array, optimizer: optax.GradientTransformation, rates: Rates | None = None
    ) -> TrainState:
        """Training state before the first update; all noise comes from the key."""
        return initial_state(
            self.params,
            optimizer,
            key,
            statistics=self.statistics,
            frozen=self.frozen,
            rates=rates,
        )

    def step(self, kind: Callable, optimizer: optax.GradientTransformation) -> Callable:
        """`train_step` or `summed_step` with this loss, for `Run.step`."""
        return functools.partial(
            kind,
            loss_fn=self.loss_fn,
            optimizer=optimizer,
            track=self.track,
            measure=self.measure,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective:
    """Loss of a training stage, with the function that reads a model's outputs for it.

    read: outputs of the model: `(params, rows, keys) -> log-probabilities, ...`.
    make_loss: `read -> loss_fn`, a function of `objectives` with its numbers.
    statistics, track, measure: as in `Learner`.
    """

    read: Callable[..., Any]
    make_loss: Callable[[Callable[..., Any]], LossFn]
    statistics: Any = None
    track: Track | None = None
    measure: BatchSums | None = None

    def learner(self, policy: TextModel) -> Learner:
        """A learner of the policy's trained parameters with this loss."""
        return Learner(
            params=policy.trained,
            frozen=policy.frozen,
            loss_fn=self.make_loss(self.read),
            statistics=self.statistics,
            track=self.track,
            measure=self.measure,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Metrics computed along training: at the start, every so many steps, and at the end.

    every: steps (or iterations) between them; None: at the start and at the end only.
    """

    metrics: Callable[[Any], dict[str, float]]
    every: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loop:
    """A training loop: its update (a gradient step or an iteration), batches, length and logging.

    update: `(state, batch) -> (state, metrics)`; it may use the state up.
    batches: number of the batch -> the batch; a pure function.
    steps: updates of the whole run.
    log_every, save_every: updates between lines of the metrics, and between checkpoints.
    evaluation: along the way; None: nothing is evaluated.
    tokens_per_step: for the progress; None: it tells none.
    """

    update: Callable[[TrainState, Any], tuple[TrainState, Metrics]]
    batches: Callable[[int], Any]
    steps: int
    log_every: int = 1
    save_every: int | None = None
    evaluation: Evaluation | None = None
    tokens_per_step: int | None = None


def fit_loop(run: Run, name: str, state: TrainState, loop: Loop) -> Any:
    """Trained parameters after a loop, on the host.

    It resumes where an earlier run of this stage stopped, with the same bits.

    Args:
      name: of the stage, in metrics, checkpoints and progress.
      state: at the start, on the host.
      loop: what is done, and how often.
    """
    checkpoints, evaluation = run.checkpoints(name), loop.evaluation
    evaluate = None if evaluation is None else lambda state: evaluation.metrics(state.all_params)
    state = fit(
        run.layout.place(state),
        loop.update,
        loop.batches,
        steps=loop.steps,
        on_metrics=functools.partial(run.metrics.write, name),
        on_start=functools.partial(run.metrics.resume, name),
        log_every=loop.log_every,
        checkpoints=checkpoints,
        save_every=loop.save_every,
        evaluate=evaluate,
        evaluate_every=None if evaluation is None else evaluation.every,
        label=name,
        tokens_per_step=loop.tokens_per_step,
    )
    checkpoints.close()
    return jax.device_get(state.params)


def fit_batches(
    run: Run,
    name: str,
    learner: Learner,
    batches: Callable[[int], Any],
    *,
    settings: FitConfig,
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
      prepare: `(state, batch) -> (batch of the loss, metrics)`, before every update: samples of
        the parameters of that moment, and what frozen models say of them. None: the batch is that
        of the loss.
      evaluation, tokens_per_step: as in `Loop`.
    """
    optimizer = optimizer_of(settings.optimizer, settings.updates)
    step = run.step(learner.step(train_step, optimizer), micro_batches=settings.micro_batches)

    def prepared(state: TrainState, rows: Any) -> tuple[TrainState, Metrics]:
        batch, measured = prepare(state, rows) if prepare else (rows, {})
        state, metrics = step(state, batch)
        return state, metrics | measured

    loop = Loop(
        update=prepared,
        batches=batches,
        steps=settings.updates,
        log_every=settings.log_every,
        save_every=settings.save_every,
        evaluation=evaluation,
        tokens_per_step=tokens_per_step,
    )
    rates = schedule_of(settings.optimizer, settings.updates)
    return fit_loop(run, name, learner.state(run.key(name), optimizer, rates), loop)


def fit_iterations(
    run: Run,
    name: str,
    learner: Learner,
    iteration: Callable[[Callable], Callable[[TrainState, Any], tuple[TrainState, Metrics]]],
    *,
    batches: Callable[[int], Any],
    settings: PPOSettings | GRPOSettings,
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
      evaluation: along the way, every so many iterations.
    """
    steps = settings.total_iterations * settings.epochs * settings.minibatches
    optimizer = optimizer_of(settings.optimizer, steps)
    step = run.step(learner.step(summed_step, optimizer), micro_batches=settings.micro_batches)
    loop = Loop(
        update=iteration(step),
        batches=batches,
        steps=settings.total_iterations,
        log_every=settings.log_every,
        save_every=settings.save_every,
        evaluation=evaluation,
    )
    rates = schedule_of(settings.optimizer, steps)
    return fit_loop(run, name, learner.state(run.key(name), optimizer, rates), loop)


def updates_left(run: Run, name: str, updates: int) -> int:
    """Number of updates left of a stage that an earlier run may have begun."""
    return updates - max(run.checkpoints(name).steps(), default=0)


def optimizer_of(settings: OptimizerConfig, total_steps: int) -> optax.GradientTransformation:
    """Optax transformation of a configuration; fields that are None are as for a small model."""
    return make_optimizer(**_optimizer_fields(settings, total_steps), total_steps=total_steps)


def schedule_of(settings: OptimizerConfig, total_steps: int) -> Rates:
    """Numbers of the schedule of a configuration, as the optimizer's."""
    fields = _optimizer_fields(settings, total_steps)
    named = {name: fields[name] for name in ("learning_rate", "warmup_steps")}
    return rates_of(**named, total_steps=total_steps)


def _optimizer_fields(settings: OptimizerConfig, total_steps: int) -> dict[str, Any]:
    fields = dataclasses.asdict(filled_optimizer(settings, total_steps))
    del fields["warmup_share"]  # in steps now
    return fields
