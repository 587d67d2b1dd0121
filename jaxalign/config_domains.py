"""The configurations of PPO on control tasks and on images.

Every field is read by the stage that declares it; what must divide is checked when a configuration
is made.
"""

from typing import Literal

from jaxalign.config_checks import config
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


@config
class ControlConfig:
    """PPO from scratch on CartPole, all seeds in one compiled call."""

    seeds: tuple[int, ...] = (0, 1, 2, 3)
    """One independent training each; they run side by side."""
    total_steps: int = 500_000
    """Environment steps of each seed, rounded down to whole updates."""
    environments: int = 4
    """Environments of each seed that are stepped together."""
    rollout_length: int = 128
    """Steps of each environment between updates."""
    max_episode_steps: int = 500
    """Time limit of an episode; reaching it is a truncation, whose value is bootstrapped."""
    log_every: int = 16
    """Updates in one compiled call, and between lines of metrics."""
    checkpoint_every: int = 160
    """Updates between checkpoints, a multiple of `log_every`; the run resumes from the last one."""
    network: NetworkConfig = NetworkConfig()
    """Policy and value function."""
    ppo: UpdateSettings = UpdateSettings()
    """The update."""

    def __post_init__(self):
        check_cadence(self.log_every, self.checkpoint_every)
        check_minibatches(self.steps_per_update, self.ppo.minibatches)

    @property
    def steps_per_update(self) -> int:
        """Environment steps of one seed in one update."""
        return self.environments * self.rollout_length

    @property
    def cadence(self) -> Cadence:
        """Whole updates in `total_steps`, and the pauses between them."""
        return Cadence(
            updates=self.total_steps // self.steps_per_update,
            log_every=self.log_every,
            checkpoint_every=self.checkpoint_every,
        )


@config
class ImagesConfig:
    """A digit classifier that hardly saw two of the classes, fine-tuned on right/wrong feedback."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """One split, pretraining and fine-tuning each; they run side by side."""
    test_share: float = 0.3
    """Share of the images kept for evaluation; the rest is half pretraining, half feedback."""
    rare_classes: tuple[int, ...] = (8, 9)
    """Classes of which pretraining sees few examples."""
    rare_examples: int = 4
    """How many of each."""
    pretraining_steps: int = 300
    """Full-batch gradient steps on the pretraining labels; as many for the supervised row."""
    pretraining_learning_rate: float = 1e-2
    """At the start of those steps; it falls linearly to 0."""
    updates: int = 150
    """PPO updates."""
    batch_size: int = 256
    """Images named, and so bits of feedback heard, in each update."""
    kl_coef: float = 0.02
    """Reward lost per nat of log-ratio to the pretrained classifier."""
    log_every: int = 10
    """Updates in one compiled call, and between lines of metrics."""
    checkpoint_every: int = 50
    """Updates between checkpoints, a multiple of `log_every`; the run resumes from the last one."""
    network: NetworkConfig = NetworkConfig(widths=(64,), activation="relu")
    """Classifier and value function."""
    ppo: UpdateSettings = UpdateSettings(learning_rate=3e-3, max_grad_norm=1.0, entropy_coef=0.0)
    """The update."""

    def __post_init__(self):
        check_cadence(self.log_every, self.checkpoint_every)
        check_minibatches(self.batch_size, self.ppo.minibatches)

    @property
    def cadence(self) -> Cadence:
        """The updates and the pauses between them."""
        return Cadence(
            updates=self.updates,
            log_every=self.log_every,
            checkpoint_every=self.checkpoint_every,
        )


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
