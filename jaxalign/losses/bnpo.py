"""TRL's loss_type "bnpo": GRPO without KL and with the mean over the tokens of a batch.

There it is the mean of one micro-batch, so it changes with their number; here of the optimizer
batch. It is DAPO with a symmetric clip, and without filtering, dropping and punishment. (The paper
called BNPO, https://arxiv.org/abs/2506.02864, is about rewards that follow a beta distribution.)
"""

from jaxalign.losses.aggregation import TOKEN_MEAN
from jaxalign.losses.group_methods import GroupMethod
from jaxalign.losses.grpo import TOKEN_CLIP

__all__ = ("BNPO",)

BNPO = GroupMethod(
    name="bnpo",
    surrogate=TOKEN_CLIP,
    hyperparameters={"clip_range": (0.2, 0.2)},
    aggregation=TOKEN_MEAN,
)
