"""Training loops of all methods: gradient steps on batches, iterations of sampling and learning."""

import dataclasses
import functools
from collections.abc import Callable, Collection
from typing import Any

import jax
import numpy as np
import optax

from jaxalign.batches.functions import BatchSums, LossFn, Metrics
from jaxalign.config.checks import nearest
from jaxalign.config.defaults import filled_optimizer
from jaxalign.config.grpo import GRPOSettings
from jaxalign.config.loop import FitConfig, LoopFields, OptimizerConfig
from jaxalign.config.ppo import PPOSettings
from jaxalign.data.step_packing import packing_of
from jaxalign.errors import UserError
from jaxalign.models.layer_stack import unstacked, within
from jaxalign.recipes.checkpoint_models import ORIGINS, write_parts
from jaxalign.recipes.endings import Ending
from jaxalign.recipes.packed_step import PackedLoss, packed_loss
from jaxalign.recipes.run import Run
from jaxalign.recipes.step_metrics import StepFacts, StepMetrics, training_flops
from jaxalign.recipes.step_model import stacked_layers
from jaxalign.recipes.text_models import TextModel, fields_of
from jaxalign.system.console import phase, tell
from jaxalign.system.files import make_directory, read_json
from jaxalign.train.evaluations import HELD_OUT, Best, Evaluations
from jaxalign.train.loop import fit
from jaxalign.train.metrics import logged
from jaxalign.train.optimizers import Rates, learning_rate_at, make_optimizer, rates_of
from jaxalign.train.step import Track, TrainState, initial_state, summed_step, train_step


@dataclasses.dataclass(frozen=True, kw_only=True)
class Learner:
    """Trained and frozen parameters, and the loss that gradient steps lower.

    model: what the checkpoints are of.
    params: trained parameters at the start.
    loss_fn: of an objective.
    frozen: parameters that the loss reads beside them; None: there are none.
    statistics, track: running statistics of the loss, as in `train_step`; saved in checkpoints.
    measure: sums over a whole batch that the loss reads, as in `train_step`.
    shown: metrics that matter, which the progress shows.
    reads_all: whether every token of a batch goes through all these parameters, once.
    packed: its loss of packed texts, where a step may pack them; None: it may not.
    layers: number of layers that are stacked in the parameters, of a model that has them one by
      one, see `step_model`; None: they are as in the model.
    """

    model: TextModel
    params: Any
    loss_fn: LossFn
    frozen: dict | None = None
    statistics: Any = None
    track: Track | None = None
    measure: BatchSums | None = None
    shown: tuple[str, ...] = ("loss",)
    reads_all: bool = False
    packed: PackedLoss | None = None

    layers: int | None = None

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
    statistics, track, measure, shown: as in `Learner`.
    """

    read: Callable[..., Any]
    make_loss: Callable[[Callable[..., Any]], LossFn]
    statistics: Any = None
    track: Track | None = None
    measure: BatchSums | None = None
    shown: tuple[str, ...] = ("loss",)

    def learner(
        self, policy: TextModel, computed: TextModel | None = None, *, packed: bool = False
    ) -> Learner:
        """A learner of the policy's trained parameters with this loss.

        Args:
          packed: whether steps may pack the texts of a batch.
          policy: the model that is trained.
          computed: that the loss reads, as `step_model` gives it; None: the policy.
        """
        computed = policy if computed is None else computed
        return Learner(
            model=policy,
            params=computed.trained,
            frozen=computed.frozen,
            layers=stacked_layers(policy, computed),
            loss_fn=self.make_loss(self.read),
            statistics=self.statistics,
            track=self.track,
            measure=self.measure,
            shown=self.shown,
            packed=PackedLoss(loss_fn=packed_loss(self.make_loss, self.read)) if packed else None,
            reads_all=True,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Metrics of the state along training: at the start, every so many steps, and at the end.

    every: steps (or iterations) between them; None: at the end alone.
    sign: one of its metrics, by which a run that goes on knows that it was evaluated before.
    names: of its metrics; empty: they are known once there are any.
    """

    metrics: Callable[[TrainState], dict[str, float]]
    every: int | None = None
    sign: str = f"{HELD_OUT}loss"
    names: Collection[str] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loop:
    """A training loop: its update (a gradient step or an iteration), batches, length, settings.

    update: `(state, batch) -> (state, metrics)`; it may use the state up.
    batches: number of the batch -> the batch; a pure function.
    steps: updates of the whole run.
    settings: of logging, checkpoints, and the choice of the state that becomes the model.
    facts: of its steps, for their metrics.
    evaluation: along the way; None: nothing is evaluated.
    tokens_per_step: for the progress; None: it tells none.
    shown: metrics that the progress shows.
    layers: as in `Learner`.
    """

    update: Callable[[TrainState, Any], tuple[TrainState, Metrics]]
    batches: Callable[[int], Any]
    steps: int
    settings: LoopFields
    facts: StepFacts
    evaluation: Evaluation | None = None
    tokens_per_step: int | None = None
    shown: tuple[str, ...] = ("loss",)
    layers: int | None = None


def fit_loop(run: Run, name: str, state: TrainState, loop: Loop) -> Any:
    """Trained parameters after a loop, on the host.

    It resumes where an earlier run of this stage stopped, with the same bits.

    Args:
      name: of the stage, in metrics, checkpoints and progress.
      state: at the start, on the host.
      loop: what is done, and how often.
    """
    settings, values_of = loop.settings, functools.partial(logged, run.directory, name)
    if loop.evaluation is None:
        check_evaluated(settings)
    checkpoints = run.checkpoints(name, keep=settings.keep_checkpoints, layers=loop.layers)
    tell(f"{name}: {parameters_line(state)}")
    counts = StepMetrics(run.metrics, name, loop.facts)
    best = None
    if settings.best:
        best = Best(
            metric=settings.best,
            patience=settings.patience,
            logged=lambda: values_of(settings.best),
        )

    def begin(step: int) -> None:
        run.metrics.resume(name, step)
        run.samples.resume(name, step)
        counts.start(step, loop.batches)

    def update(state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        state, metrics = loop.update(state, batch)
        return state, metrics | counts.of_step(batch, metrics)

    state = fit(
        run.layout.place(state),
        update,
        loop.batches,
        steps=loop.steps,
        on_metrics=counts.write,
        on_start=begin,
        log_every=settings.log_every,
        checkpoints=checkpoints,
        save_every=settings.save_every,
        evaluations=loop.evaluation and _evaluations(name, loop.evaluation, best, values_of),
        label=name,
        shown=loop.shown,
        tokens_per_step=loop.tokens_per_step,
    )
    checkpoints.close()
    run.endings[name] = ending = Ending(stage=name, steps=loop.steps, best=best)
    for note in ending.notes:
        tell(note)
    params = jax.device_get(state.params)
    return params if loop.layers is None else unstacked(params, loop.layers)


def parameters_line(state: TrainState) -> str:
    """Numbers of trained parameters and of all, for people."""
    trained, frozen = (
        sum(int(np.size(leaf)) for leaf in jax.tree.leaves(tree))
        for tree in (state.params, state.frozen)
    )
    types = sorted({str(leaf.dtype) for leaf in jax.tree.leaves(state.params)})
    kept = f" of {trained + frozen:,}" if frozen else ""
    return f"{trained:,}{kept} parameters are trained ({', '.join(types)})"


def check_evaluated(settings: LoopFields) -> None:
    """Check that nothing is asked of a loop without held-out rows that needs them.

    Raises:
      UserError: a setting of the evaluation is given.
    """
    given = {name: getattr(settings, name) for name in ("eval_every", "best", "patience")}
    wanted = [f"{name} {value}" for name, value in given.items() if value]
    if wanted:
        raise UserError(
            f"without held-out rows nothing is evaluated, which {' and '.join(wanted)} would need; "
            "give --data.evaluation_path or --data.evaluation_share, or leave them out"
        )


def _evaluations(
    name: str,
    evaluation: Evaluation,
    best: Best | None,
    values_of: Callable[[str], dict[int, float]],
) -> Evaluations:
    """Evaluations of a loop, told of while they last and by their results, which know the metric
    that the best is chosen by.

    Raises:
      UserError: there is no such metric; at the first evaluation, where they are known then.
    """
    if evaluation.names:
        check_best(best, evaluation.names)

    def evaluate(state: TrainState) -> dict[str, float]:
        with phase(f"{name}: evaluating"):
            values = evaluation.metrics(state)
        check_best(best, values)
        numbers = ", ".join(f"{metric} {value:.4g}" for metric, value in values.items())
        tell(f"{name}: evaluation: {numbers}")
        return values

    return Evaluations(
        evaluate=evaluate,
        every=evaluation.every,
        best=best,
        logged=lambda: values_of(evaluation.sign),
    )


def check_best(best: Best | None, names: Collection[str]) -> None:
    """Check that the best is chosen by one of the metrics of these names.

    Raises:
      UserError: there is no such metric.
    """
    if best is not None and best.metric not in names:
        raise UserError(
            f"best {best.metric} is no metric of the evaluation, which has "
            f"{', '.join(names)}{nearest(best.metric, names)}"
        )


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


def learning_rates(
    settings: OptimizerConfig, total_steps: int, *, updates: int = 1
) -> Callable[[int], float]:
    """Number of a step, from 1 -> learning rate of the last of its updates."""
    filled = filled_optimizer(settings, total_steps)
    names = ("learning_rate", "schedule", "warmup_steps")
    schedule: dict[str, Any] = {name: getattr(filled, name) for name in names}
    rate = functools.partial(learning_rate_at, **schedule, total_steps=total_steps)
    return lambda step: rate(step * updates - 1)


def keep_parts(run: Run, name: str, learner: Learner) -> None:
    """Write what makes the checkpoints of a new stage models, before the first of them."""
    checkpoints, model = run.checkpoints(name), learner.model
    if checkpoints.steps():
        return
    config = read_json(run.directory / "config.json")
    trained, frozen = learner.params, learner.frozen
    if learner.layers is not None:
        trained, frozen = (within(unstacked, tree, learner.layers) for tree in (trained, frozen))
    write_parts(
        make_directory(checkpoints.directory),
        model.model,
        model.params,
        fields=fields_of(model.model),
        tokenizer=model.tokenizer,
        trained=trained,
        frozen=frozen,
        has_base=any(config.get(option) for option in ORIGINS),
    )


def updates_left(run: Run, name: str, updates: int) -> int:
    """Number of updates left of a stage that an earlier run may have begun."""
    return updates - max(run.checkpoints(name).steps(), default=0)


def is_trained(run: Run, name: str, updates: int) -> bool:
    """Whether a stage has had all its updates, by a checkpoint that is whole: what only they need
    is left out then.
    """
    checkpoints = run.checkpoints(name)
    return updates in checkpoints.steps() and checkpoints.is_whole(updates)


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
