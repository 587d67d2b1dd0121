"""Evaluation on held-out rows while a policy or a reward model is trained on others."""

import functools
from collections.abc import Callable, Sized
from typing import Any

import jax
import numpy as np

from jaxalign.batches.functions import LossFn, Metrics
from jaxalign.config.loop import FitConfig
from jaxalign.data.example_order import evaluation_batches
from jaxalign.layouts.layout import pad_rows
from jaxalign.numerics.types import Params, Tree
from jaxalign.recipes.run import Run
from jaxalign.recipes.stage import Evaluation, check_evaluated
from jaxalign.train.evaluations import HELD_OUT
from jaxalign.train.loop import mean_metrics
from jaxalign.train.step import TrainState, loss_sums


def held_out_evaluation(
    run: Run,
    loss_fn: LossFn,
    batch: Callable[[np.ndarray], Any],
    *,
    rows: int,
    size: int,
    every: int | None,
    params_of: Callable[[TrainState], Params] = lambda state: state.all_params,
    prepare: Callable[[Any], Any] = lambda batch: batch,
) -> Evaluation | None:
    """Loss and metrics of training on held-out rows, `eval/loss` and so on; None without rows.

    They go through the loss of training in batches of its size, the last one smaller: what a loss
    takes from all rows of a batch (KTO's KL, BCO's shift, AOT's order) is taken from those. Means
    are over all rows. All batches have one shape, that of the held-out rows.

    Args:
      run: where it computes.
      loss_fn: of the objective, from a model that is read `without_noise`.
      batch: positions of held-out rows (pairs, rankings) -> their batch, always of one length.
      rows: how many there are.
      size: how many make a batch.
      every: steps between evaluations; None: at the start and the end.
      params_of: what the loss reads of a training state.
      prepare: what frozen models say of a batch, whose rows the devices divide by now.
    """
    if not rows:
        return None
    sums = run.layout.sums(functools.partial(_sums, loss_fn=loss_fn))
    size, devices = min(size, rows), len(run.layout.devices)
    padded = -(-size // devices) * devices
    key = run.key("held-out")  # of a loss that draws nothing here

    def evaluate(state: TrainState) -> dict[str, float]:
        parts = map(batch, evaluation_batches(rows, size))
        batches = (prepare(pad_rows(part, padded)[0]) for part in parts)
        metrics = mean_metrics(sums, (params_of(state), key, state.statistics), batches)
        return {f"{HELD_OUT}{name}": value for name, value in metrics.items()}

    return Evaluation(metrics=evaluate, every=every)


def without_noise(read: Callable[..., Any]) -> Callable[..., Any]:
    """A function `(params, rows, keys, ...)` that reads a model as it is used: without dropout."""
    return lambda params, rows, keys=None, *rest: read(params, rows, None, *rest)


def check_held_out(fit: FitConfig, held_out: Sized) -> None:
    """Check before training that there are held-out rows where a setting needs them.

    Raises:
      UserError: there are none.
    """
    if not len(held_out):
        check_evaluated(fit)


def _sums(
    shared: tuple[Params, jax.Array, Tree], batch: Any, *, loss_fn: LossFn, axis_name: str | None
) -> tuple[jax.Array, Metrics]:
    """Weight and metric sums of a batch, for a loss with running statistics or without."""
    params, key, statistics = shared
    if statistics is not None:
        loss_fn = functools.partial(loss_fn, statistics=statistics)
    return loss_sums((params, key), batch, loss_fn=loss_fn, axis_name=axis_name)
