"""Objectives: a model and a loss as one function of a batch, `loss_fn(params, batch, key)`.

A loss_fn returns `(sum, (weight, metric_sums))`: sums over this device's part of the batch, never
means. The step adds them up over devices and micro-batches and divides once, so the update does
not depend on how a batch is cut. The models come in as plain functions (see `models/functions.py`),
the losses as they are declared in `jaxalign.losses`; nothing here knows an architecture, a domain
or a loss by its name.
"""

from jaxalign.objectives.distillation import distillation
from jaxalign.objectives.keys import example_keys
from jaxalign.objectives.language import sft
from jaxalign.objectives.online import online
from jaxalign.objectives.policy_gradient import group_policy_gradient, ppo
from jaxalign.objectives.preferences import paired, paired_sums
from jaxalign.objectives.rewards import process_reward, ranking, reward
from jaxalign.objectives.shift import shift_after_batch
from jaxalign.objectives.unpaired import unpaired, unpaired_sums

__all__ = [
    "distillation",
    "example_keys",
    "group_policy_gradient",
    "online",
    "paired",
    "paired_sums",
    "ppo",
    "process_reward",
    "ranking",
    "reward",
    "sft",
    "shift_after_batch",
    "unpaired",
    "unpaired_sums",
]
