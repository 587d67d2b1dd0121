"""Checkpoints along training: every so many steps, of the best state, and where a run stops."""

import dataclasses
from collections.abc import Callable

from jaxalign.numerics.types import Tree
from jaxalign.train.checkpoints import Checkpoints
from jaxalign.train.evaluations import Best, due


@dataclasses.dataclass(frozen=True, kw_only=True)
class Saves:
    """Checkpoints every so many steps, at the end, where a run stops before it, and of the best.

    checkpoints: where they are kept; None: nowhere.
    every: steps between them; None: none along the way.
    steps: of the whole run.
    best: names the checkpoint that stays beside the newest ones; None: there is none.
    flush: returns when all steps so far have ended well.
    """

    checkpoints: Checkpoints | None
    every: int | None
    steps: int
    best: Best | None
    flush: Callable[[], None]

    def before_refused(self, done: int, state: Tree, start: int) -> None:
        """Save the state before a step that was refused, if it is a new one."""
        self.flush()
        if self.checkpoints is not None and done - 1 > start:
            self.checkpoints.save(done - 1, state, beside=self._best)

    def after(self, done: int, state: Tree, *, stopping: bool) -> None:
        """Save the state after a step if it is time to."""
        if self.checkpoints is None:
            return
        self.checkpoints.check()
        if due(done, self.every, self.steps) or stopping or done in self._best:
            self.flush()
            self.checkpoints.save(done, state, beside=self._best)

    def if_best(self, step: int, state: Tree) -> None:
        """Save the state that a run starts with if it is the best one."""
        if self.checkpoints is not None and step in self._best:
            self.checkpoints.save(step, state, beside=self._best)

    @property
    def _best(self) -> tuple[int, ...]:
        """The best step, if there is one."""
        step = None if self.best is None else self.best.step
        return () if step is None else (step,)
