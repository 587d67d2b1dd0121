"""The loop of PPO and GRPO on text: iterations of sampling and learning."""

from jaxalign.config.checks import config
from jaxalign.config.loop import LoopFields, OptimizerConfig
from jaxalign.config.ranges import Passes, Penalty, Period, Size, Steps
from jaxalign.config.records import RecordFields


@config
class IterationSettings(LoopFields, RecordFields):
    """Iterations of sampling and learning: each samples responses, scores them and learns from
    them.
    """

    iterations: Steps | None = None
    """Iterations of sampling and learning; None: as `prompt_epochs` says, or else following the
    model."""
    prompt_epochs: Passes | None = None
    """Passes over the prompts in place of iterations, above 0; a part of one is rounded up to
    iterations."""
    micro_batches: Size = 1
    """Parts of a minibatch whose gradients are added up one after the other; the update is the
    same."""
    missing_eos_penalty: Penalty = 0.0
    """Taken from the score of a response that did not end by itself, >= 0; 0: nothing."""
    log_every: Period = 1
    """Iterations between lines of metrics."""
    save_every: Period = 10
    """Iterations between checkpoints; the run resumes from the last one."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """Update rule and schedule."""

    @property
    def total_iterations(self) -> int:
        """`iterations` once it is settled, which happens before training."""
        assert self.iterations is not None, "iterations follow the model, which nobody has asked"
        return self.iterations
