"""PPO as fine-tuning of a digit classifier that hears only right or wrong, five seeds side by side.

jaxalign ppo --config configs/ppo_digits.py
"""

from jaxalign.config_domains import ImagesConfig


def get_config() -> ImagesConfig:
    """The defaults are this experiment."""
    return ImagesConfig()
