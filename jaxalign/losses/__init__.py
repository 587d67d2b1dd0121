"""The losses, one paper a file, all unreduced: sum over a mask, divide once by a global weight."""

from jaxalign.losses.bradley_terry import bradley_terry_loss, centering_penalty
from jaxalign.losses.cross_entropy import cross_entropy_loss
from jaxalign.losses.dpo import dpo_loss, implicit_rewards, robust_dpo_loss
from jaxalign.losses.ppo import (
    ppo_loss,
    ppo_policy_clipped,
    ppo_policy_loss,
    ppo_value_clipped,
    ppo_value_loss,
    probability_ratios,
)

__all__ = [
    "bradley_terry_loss",
    "centering_penalty",
    "cross_entropy_loss",
    "dpo_loss",
    "implicit_rewards",
    "ppo_loss",
    "ppo_policy_clipped",
    "ppo_policy_loss",
    "ppo_value_clipped",
    "ppo_value_loss",
    "probability_ratios",
    "robust_dpo_loss",
]
