"""Evaluations of the state along training: when, which one was the best, and when that ends it."""

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping

from jaxalign.numerics.types import Tree

Evaluate = Callable[[Tree], dict[str, float]]  # `state -> metrics`
HELD_OUT = "eval/"  # before the names of the training metrics, for those of held-out rows


def due(done: int, every: int | None, steps: int) -> bool:
    """Whether something that comes every so many steps, and after the last one, comes now."""
    return done == steps or (every is not None and done % every == 0)


# Metrics of which less is better, whatever rows they are of; of all others more is.
LESS_IS_BETTER = {
    *("loss", "perplexity", "divergence", "kl", "kl/reference"),
    *("rewards/rejected", "logps/rejected", "scores/opponent", "scores/unjudged"),
}


def less_is_better(metric: str) -> bool:
    """Whether a metric that falls tells of a better model.

    >>> less_is_better("eval/loss"), less_is_better("eval/rewards/accuracy")
    (True, False)
    """
    return metric.removeprefix(HELD_OUT) in LESS_IS_BETTER


@dataclasses.dataclass(kw_only=True)
class Best:
    """Best evaluation so far by one metric, and whether it is time to stop.

    All that it knows are the values that were logged and the checkpoints that there are, so a run
    that was killed and started again agrees with one that was not.

    metric: by which evaluations are compared.
    patience: evaluations without a better one that end training; None: none do.
    logged: values of the metric by step, as the run has logged them so far.
    values: the same, once the run goes on.
    kept: steps whose states there are: only these can be the best.
    """

    metric: str
    patience: int | None = None
    logged: Callable[[], Mapping[int, float]] = dict
    values: dict[int, float] = dataclasses.field(default_factory=dict)
    kept: set[int] = dataclasses.field(default_factory=set)

    def recall(self, saved: Collection[int]) -> None:
        """Take up the values that were logged, of a run with checkpoints of these steps."""
        self.values = dict(self.logged())
        self.kept = set(saved)

    def add(self, step: int, value: float) -> None:
        """Compare the evaluation of a step, whose state is at hand."""
        self.values[step] = value
        self.kept.add(step)

    @property
    def step(self) -> int | None:
        """Step of the best evaluation, of equal ones the first; None: there is none."""
        sign = -1 if less_is_better(self.metric) else 1
        numbers = {
            step: sign * value
            for step, value in self.values.items()
            if step in self.kept and math.isfinite(value)
        }
        return max(sorted(numbers), key=numbers.__getitem__, default=None)

    @property
    def value(self) -> float:
        """The metric at the best step; NaN: there is none."""
        return math.nan if self.step is None else self.values[self.step]

    @property
    def exhausted(self) -> bool:
        """Whether the last `patience` evaluations were no better than one before."""
        best = -1 if self.step is None else self.step
        later = sum(step > best for step in self.values)
        return self.patience is not None and later >= self.patience


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluations:
    """Evaluations of the state: at the start and every so many steps, and at the end.

    evaluate: metrics of a state.
    every: steps between them; None: at the end alone.
    best: chooses the state that training returns, and may end it; None: it is the last one.
    logged: steps that a run which goes on has evaluated before; None: all that were due.
    """

    evaluate: Evaluate
    every: int | None = None
    best: Best | None = None
    logged: Callable[[], Collection[int]] | None = None

    def begin(self, start: int, state: Tree, report: Callable[..., None], *, steps: int) -> None:
        """Evaluate the state that a run starts with, or goes on from where it was due and there is
        no evaluation of it, or of none, or none by the metric of the best.

        Args:
          start: its step.
          state: it is not changed.
          report: gets a step and its metrics.
          steps: of the whole run.
        """
        is_due = due(start, self.every, steps)
        if self.every is None and not is_due:
            return
        uncompared = self.best is not None and not self.best.values
        logged = None if self.logged is None else self.logged()
        is_missing = logged is not None and (not logged or (is_due and start not in logged))
        if start == 0 or uncompared or is_missing:
            self.now(start, state, report)

    def now(self, step: int, state: Tree, report: Callable[..., None]) -> None:
        """Evaluate the state of a step; arguments as in `begin`."""
        metrics = self.evaluate(state)
        report(step, metrics)
        if self.best is not None:
            self.best.add(step, metrics[self.best.metric])
