"""Where a model meets a loss: each function here returns `loss_fn(params, batch, key)`.

A loss_fn returns `(sum, (weight, metric_sums))`: sums over this device's part of the batch, never
means. The step adds them up over devices and micro-batches and divides once, so the update does
not depend on how a batch is cut. The models come in as plain functions (see
`models/functions.py`); nothing here knows an architecture or a domain.
"""

from jaxalign.objectives.distillation import DISTILLATION_LOSSES, distillation
from jaxalign.objectives.group_losses import GROUP_LOSSES, GroupMethod, group_method
from jaxalign.objectives.keys import example_keys
from jaxalign.objectives.language import sft
from jaxalign.objectives.online import ONLINE_LOSSES, ONLINE_PAIR_LOSSES, OPPONENTS, online
from jaxalign.objectives.pair_losses import PAIR_LOSSES, UNPAIRED_LOSSES, NamedLoss
from jaxalign.objectives.policy_gradient import group_policy_gradient, ppo
from jaxalign.objectives.preferences import paired, paired_sums
from jaxalign.objectives.rewards import process_reward, ranking, reward
from jaxalign.objectives.unpaired import unpaired, unpaired_sums

__all__ = [
    "DISTILLATION_LOSSES",
    "GROUP_LOSSES",
    "ONLINE_LOSSES",
    "ONLINE_PAIR_LOSSES",
    "OPPONENTS",
    "PAIR_LOSSES",
    "UNPAIRED_LOSSES",
    "GroupMethod",
    "NamedLoss",
    "distillation",
    "example_keys",
    "group_method",
    "group_policy_gradient",
    "online",
    "paired",
    "paired_sums",
    "ppo",
    "process_reward",
    "ranking",
    "reward",
    "sft",
    "unpaired",
    "unpaired_sums",
]
