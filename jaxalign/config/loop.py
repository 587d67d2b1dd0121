"""The training loop and its optimizer."""

from typing import Literal

from jaxalign.config.checks import config, require, require_at_least, require_one, require_passes


@config
class OptimizerConfig:
    """AdamW, RMSprop or Muon with clipping and a schedule.

    None follows the model, as the training loop says.
    """

    name: Literal["adamw", "rmsprop", "muon"] = "adamw"
    """Update rule."""
    learning_rate: float | None = None
    """Peak learning rate; None follows the model."""
    schedule: Literal["constant", "linear", "cosine"] | None = None
    """Course of the learning rate after the warm-up; linear and cosine end at 0. None follows the
    model."""
    warmup_steps: int | None = None
    """Steps of linear warm-up from 0; None: as `warmup_share` says, or else following the model."""
    warmup_share: float | None = None
    """The same as a share of all steps, in [0, 1], rounded up; in place of warmup_steps."""
    weight_decay: float = 0.0
    """Decoupled decay of matrices."""
    b2: float | None = None
    """Decay rate of the second moment; None follows the model."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this global norm."""

    def __post_init__(self):
        require_at_least(0, "optimizer.", self, "learning_rate", "warmup_steps", "weight_decay")
        b2, share = self.b2, self.warmup_share
        require(b2 is None or 0 <= b2 < 1, f"optimizer.b2 is {b2}; it must lie in [0, 1)")
        require(
            share is None or 0 <= share <= 1,
            f"optimizer.warmup_share is {share}; it must lie in [0, 1]",
        )
        require_one("optimizer.", self, "warmup_steps", "warmup_share")
        require(
            self.max_grad_norm > 0,
            f"optimizer.max_grad_norm is {self.max_grad_norm}; it must be above 0",
        )


@config
class FitConfig:
    """One training loop."""

    steps: int | None = None
    """Optimizer steps; None: as `epochs` says, or else following the model."""
    epochs: float | None = None
    """Passes over the data in place of steps, above 0; a part of one is rounded up to steps."""
    batch_size: int | None = None
    """Rows of a step over all devices and micro-batches (pairs for DPO, texts for a reward
    model); None follows the model, and is at most all rows where passes are counted."""
    micro_batches: int = 1
    """Parts of a batch whose gradients are added up one after the other; the update is the same,
    also where they do not divide the batch."""
    log_every: int = 20
    """Steps between lines of metrics."""
    checkpoint_every: int = 200
    """Steps between checkpoints; the run resumes from the last one."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """Update rule and schedule."""

    def __post_init__(self):
        require_at_least(0, "", self, "steps")
        require_at_least(
            1, "", self, "batch_size", "micro_batches", "log_every", "checkpoint_every"
        )
        require_passes("epochs", self.epochs)
        require_one("", self, "steps", "epochs")

    @property
    def updates(self) -> int:
        """`steps`, which a run settles before it trains."""
        assert self.steps is not None, "steps follow the model, which nobody has asked"
        return self.steps

    @property
    def rows(self) -> int:
        """`batch_size`, which a run settles before it trains."""
        assert self.batch_size is not None, "batch_size follows the model, which nobody has asked"
        return self.batch_size
