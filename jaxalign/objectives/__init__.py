"""Where a model meets a loss: each function here returns `loss_fn(params, batch, key)`.

A loss_fn returns `(sum, (weight, metric_sums))`: sums over this device's part of the batch, never
means. The step adds them up over devices and micro-batches and divides once, so the update does
not depend on how a batch is cut. The models come in as plain functions (see `scoring.py`); nothing
here knows an architecture or a domain.
"""

from jaxalign.objectives.keys import example_keys
from jaxalign.objectives.language import sft
from jaxalign.objectives.policy_gradient import ppo
from jaxalign.objectives.preferences import both_sides, dpo
from jaxalign.objectives.rewards import reward

__all__ = ["both_sides", "dpo", "example_keys", "ppo", "reward", "sft"]
