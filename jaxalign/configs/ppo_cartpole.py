"""PPO on CartPole-v1 with the published settings of CleanRL and PureJaxRL, four seeds side by side.

    jaxalign ppo --config ppo_cartpole

Device: CPU, two cores; 29 s with compilation (40 CPU-seconds).
Expected: a mean return of 500.0 over the last 100 episodes on each of the four seeds; 475 is first
reached after 278,528, 294,912, 221,184 and 253,952 of 499,712 environment steps.
Published, same settings and steps: CleanRL 490.04 ± 6.12 (3 seeds). Theirs treats the time limit as
the end of the task; here it is a truncation and its value is bootstrapped.
"""

from jaxalign.config.control import ControlConfig


def get_config() -> ControlConfig:
    """The defaults are the published settings."""
    return ControlConfig()
