"""REINFORCE++: returns of tokens, whitened over the batch, PPO's clip, k1 in the reward.

Hu et al. 2025, https://arxiv.org/abs/2501.03262; the KL coefficient is that of OpenRLHF.
"""

from jaxalign.advantages import WHITENED_RETURNS
from jaxalign.kl import K1
from jaxalign.losses.aggregation import TOKEN_MEAN
from jaxalign.losses.group_methods import GroupMethod
from jaxalign.losses.grpo import TOKEN_CLIP

__all__ = ("REINFORCE_PLUS_PLUS",)

REINFORCE_PLUS_PLUS = GroupMethod(
    name="reinforce_plus_plus",
    surrogate=TOKEN_CLIP,
    hyperparameters={"clip_range": (0.2, 0.2)},
    aggregation=TOKEN_MEAN,
    advantages=WHITENED_RETURNS,
    kl_coef=0.01,
    kl_in="reward",
    kl_estimator=K1,
)
