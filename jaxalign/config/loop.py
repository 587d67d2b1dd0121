"""The training loop over rows; optimizer, logging and checkpoints of every training loop."""

from typing import Literal

from jaxalign.config.checks import config, require, require_one
from jaxalign.config.ranges import Passes, Period, Positive, Rate, Share, ShareBelowOne, Size, Steps


@config
class OptimizerConfig:
    """Optimizer: AdamW, RMSprop or Muon with clipping of gradients and a schedule.

    None follows the model, as the training loop says.
    """

    name: Literal["adamw", "rmsprop", "muon"] = "adamw"
    """Update rule."""
    learning_rate: Rate | None = None
    """Peak learning rate, >= 0; None follows the model."""
    schedule: Literal["constant", "linear", "cosine"] | None = None
    """Course of the learning rate after the warm-up; linear and cosine end at 0. None follows the
    model."""
    warmup_steps: Steps | None = None
    """Steps of linear warm-up from 0; None: as `warmup_share` says, or else following the model."""
    warmup_share: Share | None = None
    """The same as a share of all steps, in [0, 1], rounded up; in place of warmup_steps."""
    weight_decay: Rate = 0.0
    """Decoupled decay of matrices, >= 0."""
    b2: ShareBelowOne | None = None
    """Decay rate of the second moment, in [0, 1); None follows the model."""
    max_grad_norm: Positive = 1.0
    """Gradients are scaled down to this global norm, > 0."""

    def __post_init__(self):
        require_one("optimizer.", self, "warmup_steps", "warmup_share")


@config
class LoopFields:
    """Logging, evaluation and checkpoints of a training loop, counted in its steps or iterations.

    They change nothing of what is learned, but for where it stops and which state is the result.
    """

    log_every: Period = 20
    """Steps (iterations) between lines of metrics."""
    save_every: Period = 200
    """Steps (iterations) between checkpoints; the run resumes from the last one."""
    eval_every: Period | None = None
    """Steps (iterations) between evaluations on held-out rows, from the start on; None: at the
    end alone."""
    keep_checkpoints: Size = 2
    """How many of the newest checkpoints stay; that of the best evaluation stays beside them."""
    best: str = ""
    """Metric of the held-out rows, such as `eval/loss`: the state that was best by it becomes the
    model. Empty: the last state."""
    patience: Period | None = None
    """Evaluations without a better one by `best` after which training stops; None: it never does.
    """

    def __post_init__(self):
        require(
            not self.best or bool(self.eval_every),
            f"best {self.best} chooses among evaluations along the way; give eval_every too",
        )
        require(
            self.patience is None or bool(self.best),
            f"patience {self.patience} counts evaluations without a better one; give best and "
            "eval_every too",
        )


@config
class FitConfig(LoopFields):
    """Training loop over rows: length, batch size, optimizer, logging and checkpoints."""

    steps: Steps | None = None
    """Optimizer steps; None: as `epochs` says, or else following the model."""
    epochs: Passes | None = None
    """Passes over the data in place of steps, above 0; a part of one is rounded up to steps."""
    batch_size: Size | None = None
    """Rows of a step over all devices and micro-batches. What a row is, the training loop says.
    None follows the model, and is at most all rows where passes are counted."""
    micro_batches: Size = 1
    """Parts of a batch whose gradients are added up one after the other; the update is the same,
    also where they do not divide the batch."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """Update rule and schedule."""

    def __post_init__(self):
        super().__post_init__()
        require_one("", self, "steps", "epochs")

    @property
    def updates(self) -> int:
        """`steps` once it is settled, which happens before training."""
        assert self.steps is not None, "steps follow the model, which nobody has asked"
        return self.steps

    @property
    def rows(self) -> int:
        """`batch_size` once it is settled, which happens before training."""
        assert self.batch_size is not None, "batch_size follows the model, which nobody has asked"
        return self.batch_size
