"""Settings of PPO on control tasks and images, where several seeds train side by side."""

from typing import Literal

from jaxalign.config.checks import config, require
from jaxalign.config.ppo_update import PPOUpdateFields
from jaxalign.config.ranges import Period, Positive, Rate, Share, Size, Steps, Weight, WholePasses


@config
class UpdateSettings(PPOUpdateFields):
    """One PPO update of control and images: experience, objective and its optimizer (Adam)."""

    update_epochs: WholePasses = 4
    """Passes over the experience of one rollout."""
    gamma: Share = 0.99
    """Discount of later rewards, in [0, 1]."""
    value_coef: Weight = 0.5
    """Weight of the value loss, >= 0."""
    entropy_coef: Weight = 0.01
    """Weight of the entropy bonus, >= 0."""
    learning_rate: Rate = 2.5e-4
    """Learning rate of the first update, >= 0."""
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    """Course of the learning rate; linear and cosine end at 0."""
    adam_eps: Positive = 1e-5
    """Added to the root of Adam's second moment, > 0."""
    max_grad_norm: Positive = 0.5
    """Gradients are scaled down to this global norm, > 0."""


@config
class NetworkConfig:
    """Two multilayer perceptrons: the policy and its value function."""

    widths: tuple[Size, ...] = (64, 64)
    """Widths of the hidden layers."""
    activation: Literal["tanh", "relu"] = "tanh"
    """Their non-linearity."""


@config
class Cadence:
    """Numbers of updates: in all, in a compiled call, and between checkpoints."""

    updates: Steps
    log_every: Period
    save_every: Period

    @property
    def calls(self) -> int:
        """Compiled calls in all; the last one may be shorter."""
        return -(-self.updates // self.log_every)

    def done(self, calls: int) -> int:
        """Updates done after so many calls."""
        return min(calls * self.log_every, self.updates)


@config
class SeedsFields:
    """Settings that control and images share: network, PPO update, updates in a compiled call."""

    log_every: Period = 16
    """Updates in one compiled call, and between lines of metrics."""
    save_every: Period = 160
    """Updates between checkpoints, a multiple of `log_every`; the run resumes from the last one."""
    network: NetworkConfig = NetworkConfig()
    """Policy and value function."""
    ppo: UpdateSettings = UpdateSettings()
    """The update."""

    def __post_init__(self):
        require(
            self.save_every % self.log_every == 0,
            f"save_every is {self.save_every}, no multiple of log_every "
            f"{self.log_every}; choose a multiple",
        )

    def require_equal_minibatches(self, rows: int):
        """Raise a one-line `UserError` unless the rows of an update divide into minibatches."""
        require(
            rows % self.ppo.minibatches == 0,
            f"an update has {rows} decisions, no multiple of ppo.minibatches "
            f"{self.ppo.minibatches}; choose a divisor",
        )

    def cadence_of(self, updates: int) -> Cadence:
        """Cadence of so many updates."""
        return Cadence(updates=updates, log_every=self.log_every, save_every=self.save_every)
