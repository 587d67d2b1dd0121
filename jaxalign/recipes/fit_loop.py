"""The loop of every training: logging, checkpoints, evaluation, and the choice of the model."""

import dataclasses
import functools
from collections.abc import Callable, Collection
from typing import Any

import jax
import numpy as np

from jaxalign.batches.functions import Metrics
from jaxalign.config.checks import nearest
from jaxalign.config.loop import LoopFields
from jaxalign.errors import UserError
from jaxalign.models.layer_stack import unstacked
from jaxalign.recipes.endings import Ending
from jaxalign.recipes.run import Run
from jaxalign.recipes.step_metrics import StepFacts, StepMetrics
from jaxalign.system.console import phase, tell
from jaxalign.train.evaluations import HELD_OUT, Best, Evaluations
from jaxalign.train.loop import fit
from jaxalign.train.metrics import logged
from jaxalign.train.step import TrainState


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
