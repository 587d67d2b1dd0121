"""The configuration of `jaxalign ppo` on a control task."""

from jaxalign.config.checks import config
from jaxalign.config.names import ControlTaskName
from jaxalign.config.ranges import Count, Seed, Size
from jaxalign.config.seeds import Cadence, SeedsFields


@config
class ControlConfig(SeedsFields):
    """PPO from scratch on a control task, all seeds in one compiled call.

    Example: jaxalign ppo --config ppo_cartpole --seed 0 1
    """

    task: ControlTaskName = "cartpole"
    """What is learned."""
    seeds: tuple[Seed, ...] = (0, 1, 2, 3)
    """One independent training each; they run side by side."""
    total_steps: Count = 500_000
    """Environment steps of each seed, rounded down to whole updates."""
    environments: Size = 4
    """Environments of each seed that are stepped together."""
    rollout_length: Size = 128
    """Steps of each environment between updates."""
    max_episode_steps: Size = 500
    """Time limit of an episode; reaching it is a truncation, whose value is bootstrapped."""

    def __post_init__(self):
        super().__post_init__()
        self.require_equal_minibatches(self.steps_per_update)

    @property
    def steps_per_update(self) -> int:
        """Environment steps of one seed in one update."""
        return self.environments * self.rollout_length

    @property
    def cadence(self) -> Cadence:
        """Cadence of the updates in `total_steps`, in a compiled call, between checkpoints."""
        return self.cadence_of(self.total_steps // self.steps_per_update)
