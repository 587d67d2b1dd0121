"""The configurations of PPO on control tasks and on images.

Every field is read by the stage that declares it; what must divide is checked when a configuration
is made.
"""

from typing import Literal

from jaxalign.config.checks import config
from jaxalign.errors import UserError


@config
class UpdateSettings:
    """One PPO update: passes over the experience, the objective and its optimizer (Adam)."""

    epochs: int = 4
    """Passes over the experience of one rollout."""
    minibatches: int = 4
    """Gradient steps in each pass."""
    gamma: float = 0.99
    """Discount of later rewards, in [0, 1]."""
    gae_lambda: float = 0.95
    """Trace decay of the advantage estimate, in [0, 1]."""
    clip_range: float = 0.2
    """How far the probability ratio may leave 1 before it earns nothing more."""
    value_clip_range: float | None = 0.2
    """How far a value may move from its old prediction; None does not clip."""
    value_coef: float = 0.5
    """Weight of the value loss."""
    entropy_coef: float = 0.01
    """Weight of the entropy bonus."""
    learning_rate: float = 2.5e-4
    """Of the first update."""
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    """Course of the learning rate; linear and cosine end at 0."""
    adam_eps: float = 1e-5
    """Added to the root of Adam's second moment."""
    max_grad_norm: float = 0.5
    """Gradients are scaled down to this global norm."""


@config
class NetworkConfig:
    """Two multilayer perceptrons, policy and value."""

    widths: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers."""
    activation: Literal["tanh", "relu"] = "tanh"
    """Their non-linearity."""


@config
class Cadence:
    """How many updates, and how many in one compiled call and between checkpoints."""

    updates: int
    log_every: int
    checkpoint_every: int

    @property
    def calls(self) -> int:
        """Compiled calls in all; the last one may be shorter."""
        return -(-self.updates // self.log_every)

    def done(self, calls: int) -> int:
        """Updates done after so many calls."""
        return min(calls * self.log_every, self.updates)


def check_cadence(log_every: int, checkpoint_every: int):
    """Checkpoints are written between compiled calls."""
    if checkpoint_every % log_every:
        raise UserError(
            f"checkpoint_every is {checkpoint_every}, no multiple of log_every {log_every}; "
            "choose a multiple"
        )


def check_minibatches(rows: int, minibatches: int):
    """Minibatches have equal sizes."""
    if rows % minibatches:
        raise UserError(
            f"an update has {rows} decisions, no multiple of ppo.minibatches {minibatches}; "
            "choose a divisor"
        )
