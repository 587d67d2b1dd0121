"""How the training of a stage ended: which state became the model, and what ended it."""

import dataclasses
from typing import Any

from jaxalign.train.evaluations import Best


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ending:
    """End of the training of a stage.

    stage: its name.
    steps: that it was to have.
    best: what chose the state, and may have ended it before; None: the last state was taken.
    """

    stage: str
    steps: int
    best: Best | None = None

    @property
    def stopped_at(self) -> int | None:
        """Step after which training stopped for want of a better evaluation; None: it did not."""
        if self.best is None or not self.best.exhausted:
            return None
        return max(self.best.values)

    @property
    def step(self) -> int:
        """Step of the state that became the model."""
        return self.steps if self.best is None or self.best.step is None else self.best.step

    @property
    def columns(self) -> dict[str, Any]:
        """What `results.json` holds of it; nothing where all steps were made and the last won."""
        columns: dict[str, Any] = {}
        if self.best is not None and self.best.step is not None:
            columns |= {
                "best_metric": self.best.metric,
                "best_step": self.best.step,
                "best_value": self.best.value,
            }
        return columns | ({} if self.stopped_at is None else {"stopped_at": self.stopped_at})

    @property
    def notes(self) -> list[str]:
        """The same in sentences."""
        notes: list[str] = []
        if self.stopped_at is not None and self.best is not None:
            notes.append(
                f"{self.stage}: training stopped after step {self.stopped_at} of {self.steps}, "
                f"with {self.best.patience} evaluations in a row without a better "
                f"{self.best.metric}."
            )
        if self.best is not None and self.best.step is not None:
            notes.append(
                f"{self.stage}: the model is that of step {self.best.step}, the best by "
                f"{self.best.metric} ({self.best.value:.4g})."
            )
        return notes
