"""Dr. GRPO: GRPO without its biases from lengths and deviations, and without KL.

Liu et al. 2025, https://arxiv.org/abs/2503.20783.
"""

from jaxalign.advantages import CENTRED
from jaxalign.losses.aggregation import CONSTANT_LENGTH
from jaxalign.losses.group_methods import GroupMethod
from jaxalign.losses.grpo import TOKEN_CLIP

__all__ = ("DR_GRPO",)

DR_GRPO = GroupMethod(
    name="dr_grpo",
    surrogate=TOKEN_CLIP,
    hyperparameters={"clip_range": (0.2, 0.2)},
    aggregation=CONSTANT_LENGTH,
    advantages=CENTRED,
)
