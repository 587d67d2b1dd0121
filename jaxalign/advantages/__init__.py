"""Advantages, returns and per-step rewards of policy gradients."""

from jaxalign.advantages.baselines import greedy_baseline_advantages, running_baseline
from jaxalign.advantages.gae import gae, gae_associative
from jaxalign.advantages.group import (
    BATCH,
    BEST_OF_GROUP,
    CENTRED,
    GROUP,
    LEAVE_ONE_OUT,
    LENGTH_WEIGHTED,
    batch_scaled_advantages,
    best_of_group_advantages,
    centred_advantages,
    decoupled_advantages,
    grpo_advantages,
    leave_one_out_advantages,
    length_weighted_advantages,
    weighted_scores,
)
from jaxalign.advantages.reinforce_plus_plus import (
    WHITENED_RETURNS,
    reinforce_plus_plus_advantages,
)
from jaxalign.advantages.returns import discounted_returns, lambda_returns, n_step_returns
from jaxalign.advantages.rewards import (
    missing_eos_penalty,
    overlong_penalties,
    shaped_rewards,
)
from jaxalign.advantages.vtrace import vtrace
from jaxalign.numerics import named as _named

ADVANTAGES = _named.by_name(
    (
        *(GROUP, BATCH, CENTRED, LEAVE_ONE_OUT, BEST_OF_GROUP, LENGTH_WEIGHTED),
        WHITENED_RETURNS,
    )
)

__all__ = [
    "batch_scaled_advantages",
    "best_of_group_advantages",
    "centred_advantages",
    "decoupled_advantages",
    "discounted_returns",
    "gae",
    "gae_associative",
    "greedy_baseline_advantages",
    "grpo_advantages",
    "lambda_returns",
    "leave_one_out_advantages",
    "length_weighted_advantages",
    "missing_eos_penalty",
    "n_step_returns",
    "overlong_penalties",
    "reinforce_plus_plus_advantages",
    "running_baseline",
    "shaped_rewards",
    "vtrace",
    "weighted_scores",
]
