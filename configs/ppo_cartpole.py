"""PPO on CartPole-v1 with the published settings of CleanRL and PureJaxRL, four seeds side by side.

jaxalign ppo --config configs/ppo_cartpole.py
"""

from jaxalign.config_domains import ControlConfig


def get_config() -> ControlConfig:
    """The defaults are the published settings."""
    return ControlConfig()
