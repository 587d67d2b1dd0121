"""Advantages, returns and per-step rewards: what the policy gradient multiplies."""

from jaxalign.advantages.gae import gae, gae_associative
from jaxalign.advantages.group import (
    batch_scaled_advantages,
    centred_advantages,
    decoupled_advantages,
    grpo_advantages,
    leave_one_out_advantages,
    length_weighted_advantages,
    weighted_scores,
)
from jaxalign.advantages.reinforce_plus_plus import reinforce_plus_plus_advantages
from jaxalign.advantages.returns import discounted_returns, lambda_returns, n_step_returns
from jaxalign.advantages.rewards import missing_eos_penalty, shaped_rewards
from jaxalign.advantages.vtrace import vtrace

__all__ = [
    "batch_scaled_advantages",
    "centred_advantages",
    "decoupled_advantages",
    "discounted_returns",
    "gae",
    "gae_associative",
    "grpo_advantages",
    "lambda_returns",
    "leave_one_out_advantages",
    "length_weighted_advantages",
    "missing_eos_penalty",
    "n_step_returns",
    "reinforce_plus_plus_advantages",
    "shaped_rewards",
    "vtrace",
    "weighted_scores",
]
