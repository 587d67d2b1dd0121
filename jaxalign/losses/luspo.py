"""LUSPO: GSPO, each response times its length.

Liu et al. 2026, https://arxiv.org/abs/2602.05261; clip range of Sec. 5.1.
"""

from jaxalign.losses.aggregation import SEQUENCE_SUM
from jaxalign.losses.group_methods import GroupMethod
from jaxalign.losses.gspo import SEQUENCE_CLIP

__all__ = ("LUSPO",)

LUSPO = GroupMethod(
    name="luspo",
    surrogate=SEQUENCE_CLIP,
    hyperparameters={"clip_range": (2e-3, 2.5e-3)},
    aggregation=SEQUENCE_SUM,
)
