"""The configuration of `jaxalign ppo` on a control task."""

from jaxalign.config.checks import config
from jaxalign.config.names import ControlTaskName
from jaxalign.config.seeds import (
    Cadence,
    NetworkConfig,
    UpdateSettings,
    check_cadence,
    check_minibatches,
)


@config
class ControlConfig:
    """PPO from scratch on a control task, all seeds in one compiled call."""

    task: ControlTaskName = "cartpole"
    """What is learned."""
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
