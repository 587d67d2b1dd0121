"""DAPO: clip-higher, mean over tokens, no KL, overlong filtering, soft overlong punishment.

Yu et al. 2025, https://arxiv.org/abs/2503.14476; punished are the last 4,096 of 20,480 tokens. Its
dynamic sampling draws until a batch is full of unequal groups; here equal ones are dropped and no
other is drawn.
"""

from jaxalign.losses.aggregation import TOKEN_MEAN
from jaxalign.losses.group_methods import GroupMethod
from jaxalign.losses.grpo import TOKEN_CLIP

__all__ = ("DAPO",)

DAPO = GroupMethod(
    name="dapo",
    surrogate=TOKEN_CLIP,
    hyperparameters={"clip_range": (0.2, 0.28)},
    aggregation=TOKEN_MEAN,
    mask_truncated=True,
    drop_equal_groups=True,
    overlong_share=0.2,
)
