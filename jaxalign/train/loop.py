"""The training loop of every stage, which can be stopped anywhere and resumes exactly there."""

import collections
import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from jaxalign.batches.functions import Metrics
from jaxalign.errors import StepRefused, UserError
from jaxalign.numerics.types import Tree
from jaxalign.system.compile_time import compile_time
from jaxalign.system.console import counted, phase, seconds, tell
from jaxalign.system.signals import deferred, name_of, say
from jaxalign.train.checkpoints import Checkpoints
from jaxalign.train.evaluations import Evaluations, due
from jaxalign.train.saves import Saves

IN_FLIGHT = 2  # steps that are handed to the device before an earlier one must have ended


Step = Callable[[Tree, Any], tuple[Tree, Metrics]]  # `(state, batch) -> (state, metrics)`
OnMetrics = Callable[[int, dict[str, float]], None]  # `(step, metrics)`


def fit(
    state: Tree,
    step: Step,
    batches: Callable[[int], Any],
    *,
    steps: int,
    on_metrics: OnMetrics,
    log_every: int = 1,
    on_start: Callable[[int], None] = lambda step: None,
    checkpoints: Checkpoints | None = None,
    save_every: int | None = None,
    evaluations: Evaluations | None = None,
    label: str | None = None,
    shown: Sequence[str] = ("loss",),
    tokens_per_step: int | None = None,
) -> Tree:
    """The state after all steps of a run, or its best one; it goes on from the last checkpoint.

      state, metrics = step(state, batches(i)),  i = 0 ... steps - 1

    Step n is the state after n updates: its metrics are those of batch n - 1. Since batch i depends
    on i only and the state holds all else, a run that was killed and started again ends with the
    same bits as one that was not. On SIGTERM, SIGHUP or Ctrl-C the state is saved, one line says
    how to go on, and the process exits with status 128 + signal; a second signal exits at once.

    Args:
      state: as `Layout.place` returned it; it is used up.
      step: compiled step of a layout, or any function of that form.
      batches: pure function of the number of the batch.
      steps: updates of the whole run.
      on_metrics: gets a step and its metrics as floats, in order, at most two steps late.
      log_every: steps between calls of `on_metrics`; the last step is always reported.
      on_start: gets the step that the run goes on from (0 for a new one), before anything else.
      checkpoints: where states are saved and found; None neither saves nor resumes.
      save_every: steps between saves; the last step is always saved.
      evaluations: metrics of the state, passed to `on_metrics`; None evaluates nothing.
      label: shows progress under this name; None shows nothing.
      shown: metrics that the progress shows.
      tokens_per_step: lets the progress tell tokens per second.

    Returns:
      The state after `steps` updates or, where the evaluations have a best, the one with that.

    Raises:
      UserError: the loss is not finite, or the checkpoint is beyond `steps`.
      StepRefused: from `step`, once the state before it is saved, or from an evaluation, once the
        state is.
    """
    start, state = _resumed(state, checkpoints, steps)
    on_start(start)
    silent = contextlib.nullcontext(lambda done, note: None)
    counts = {"total": steps, "start": start, "tokens_per_step": tokens_per_step}
    log = _Log(on_metrics, log_every, steps, shown)
    best = None if evaluations is None else evaluations.best
    saves = Saves(
        checkpoints=checkpoints, every=save_every, steps=steps, best=best, flush=log.flush
    )
    if best is not None:
        best.recall(() if checkpoints is None else checkpoints.steps())
    if evaluations is not None:
        evaluations.begin(start, state, on_metrics, steps=steps)
        saves.if_best(start, state)
    with (
        deferred() as signals,
        silent if label is None else counted(label, unit="step", **counts) as advance,
        _written(checkpoints),
    ):
        done = start
        has_ended = best is not None and best.exhausted
        for done in () if has_ended else range(start + 1, steps + 1):
            try:
                with _first(label if done == start + 1 else None):
                    state, metrics = step(state, batches(done - 1))
            except StepRefused as error:
                saves.before_refused(done, state, start)
                raise StepRefused(f"step {done}: {error}") from None
            log.add(done, metrics)
            if done == steps:
                log.flush()
            advance(done, log.note)
            if evaluations is not None and due(done, evaluations.every, steps):
                log.flush()
                _evaluate(evaluations, done, state, on_metrics, saves=saves)
            stopping = bool(signals)  # one that comes while this step is saved ends the next one
            has_ended = best is not None and best.exhausted
            saves.after(done, state, stopping=stopping or has_ended)
            if stopping or has_ended:
                break
        log.flush()
    if signals:
        _leave(signals[0], done, steps, saved=checkpoints is not None)
    if best is None or best.step is None or checkpoints is None:
        return state
    return checkpoints.read(best.step, state)


def _evaluate(
    evaluations: Evaluations, done: int, state: Tree, on_metrics: OnMetrics, *, saves: Saves
) -> None:
    """Evaluate the state of a step, which is saved before where it is time to, and where the
    evaluation is refused: the run goes on with it.
    """
    if evaluations.logged is not None:  # else it would not come again
        saves.after(done, state, stopping=False)
    try:
        evaluations.now(done, state, on_metrics)
    except StepRefused as error:
        saves.after(done, state, stopping=True)
        raise StepRefused(f"evaluation after step {done}: {error}") from None


@contextlib.contextmanager
def _first(label: str | None) -> Iterator[None]:
    """Context of the first step, which is traced and compiled; None: of any other step."""
    if label is None:
        yield
        return
    began = time.monotonic()
    with phase(f"{label}: compiling, first step"), compile_time() as compiled:
        yield
    took = seconds(time.monotonic() - began)
    tell(f"{label}: first step after {took}" + (f", {compiled}" if str(compiled) else ""))


@contextlib.contextmanager
def _written(checkpoints: Checkpoints | None):
    """A context at whose end every checkpoint is on disk, whatever went wrong within it."""
    try:
        yield
    except BaseException:
        if checkpoints is not None:
            with contextlib.suppress(UserError):  # the first error is the one to tell
                checkpoints.wait()
        raise
    if checkpoints is not None:
        checkpoints.wait()


def mean_metrics(
    sums: Callable[[Tree, Any], tuple[jax.Array, Metrics]], shared: Tree, batches: Iterable[Any]
) -> dict[str, float]:
    """Metrics over many batches: sums added up, divided once by the weight of all.

    Args:
      sums: `layout.sums(partial(loss_sums, loss_fn=...))`.
      shared: its first argument, `(params, key)`.
      batches: what to go through; padding rows weigh nothing.
    """
    weight, totals = 0.0, collections.defaultdict(lambda: np.zeros(2))
    for batch in batches:
        batch_weight, batch_sums = jax.device_get(sums(shared, batch))
        weight += float(batch_weight)
        for name, value in batch_sums.items():
            totals[name] += value if isinstance(value, tuple) else (value, batch_weight)
    if weight == 0:
        raise UserError("nothing to evaluate: every row of the evaluation data is masked out")
    return {name: float(total / divisor) for name, (total, divisor) in totals.items() if divisor}


class _Log:
    """Metrics on their way to `on_metrics`, handed on when their step has ended: nobody waits for
    the running one.
    """

    def __init__(self, on_metrics: OnMetrics, log_every: int, steps: int, shown: Sequence[str]):
        self.on_metrics, self.log_every, self.steps = on_metrics, log_every, steps
        self.shown, self.ended = shown, Metrics()
        self.waiting = collections.deque()

    def add(self, done: int, metrics: Metrics) -> None:
        self.waiting.append((done, metrics))
        if len(self.waiting) > IN_FLIGHT:
            self._next()

    def note(self) -> str:
        """The metrics that matter, of the last step that has ended."""
        names = [name for name in self.shown if name in self.ended]
        values = jax.device_get([self.ended[name] for name in names])
        return ", ".join(f"{name} {float(x):.4g}" for name, x in zip(names, values, strict=True))

    def flush(self) -> None:
        """Wait for all steps; a state whose loss is not finite never gets past here."""
        if self.waiting:
            _check_finite(*self.waiting[-1])
        while self.waiting:
            self._next()

    def _next(self) -> None:
        done, metrics = self.waiting.popleft()
        self.ended = jax.block_until_ready(metrics)
        if due(done, self.log_every, self.steps):
            _check_finite(done, metrics)
            numbers = {name: float(value) for name, value in jax.device_get(metrics).items()}
            self.on_metrics(done, numbers)


def _check_finite(done: int, metrics: Metrics) -> None:
    for name in ("loss", "grad_norm"):
        if name in metrics and not math.isfinite(value := float(np.asarray(metrics[name]))):
            raise UserError(
                f"{name} is {value} at step {done}, and no state with it was saved; begin again "
                "with a lower learning_rate or max_grad_norm and another --output"
            )


def _resumed(state: Tree, checkpoints: Checkpoints | None, steps: int) -> tuple[int, Tree]:
    """The step that a run goes on from and its state: those of the last checkpoint, if any."""
    restored = None if checkpoints is None else checkpoints.restore(state)
    if restored is None:
        return 0, state
    if restored[0] > steps:
        raise UserError(
            f"the checkpoint is of step {restored[0]}, the run has {steps} steps; "
            "give at least as many, or another run directory"
        )
    return restored


def _leave(number: int, done: int, steps: int, *, saved: bool) -> None:
    kept = "saved; run the same command again to go on" if saved else "not saved"
    say(f"{name_of(number)} after step {done} of {steps}: {kept}")
    raise SystemExit(128 + number)
