"""The losses, one paper a file, all unreduced: sum over a mask, divide once by a global weight."""

from jaxalign.losses.aggregation import (
    constant_length,
    sequence_mean,
    sequence_sum,
    token_mean,
    without_truncated,
)
from jaxalign.losses.alphapo import alphapo_loss
from jaxalign.losses.aot import aot_loss, aot_unpaired_loss
from jaxalign.losses.apo import apo_down_loss, apo_zero_loss, apo_zero_unpaired_loss
from jaxalign.losses.bco import RunningMean, bco_loss, bco_pair_loss, density_ratios, running_shift
from jaxalign.losses.bradley_terry import bradley_terry_loss, centering_penalty
from jaxalign.losses.cispo import cispo_loss
from jaxalign.losses.cpo import cpo_loss
from jaxalign.losses.cross_entropy import cross_entropy_loss
from jaxalign.losses.discopop import discopop_loss
from jaxalign.losses.distillation import forward_kl_loss, generalised_jsd_loss, reverse_kl_loss
from jaxalign.losses.dpo import (
    dpo_loss,
    implicit_rewards,
    log_ratios,
    no_reference,
    robust_dpo_loss,
)
from jaxalign.losses.exo import exo_pair_loss
from jaxalign.losses.f_dpo import (
    alpha_score,
    f_dpo_loss,
    forward_kl_score,
    jensen_shannon_score,
    reverse_kl_score,
)
from jaxalign.losses.gmpo import gmpo_loss
from jaxalign.losses.grpo import each_token, grpo_loss
from jaxalign.losses.gspo import sequence_log_ratios, token_log_ratios
from jaxalign.losses.hinge import hinge_loss
from jaxalign.losses.importance import (
    masked_importance_weights,
    on_policy_rows,
    top_entropy_mask,
    truncated_importance_weights,
)
from jaxalign.losses.ipo import averaged_ipo_loss, ipo_loss
from jaxalign.losses.kto import kto_kl, kto_loss
from jaxalign.losses.ld_dpo import length_desensitised_logps
from jaxalign.losses.length_normalised_dpo import length_normalised_dpo_loss, per_token
from jaxalign.losses.nash_md import mixture_logits, nash_md_loss
from jaxalign.losses.nca import nca_pair_loss
from jaxalign.losses.online_dpo import ranked
from jaxalign.losses.orpo import log_odds, orpo_loss
from jaxalign.losses.plackett_luce import plackett_luce_loss
from jaxalign.losses.ppo import (
    ppo_loss,
    ppo_policy_clipped,
    ppo_policy_loss,
    ppo_value_clipped,
    ppo_value_loss,
    probability_ratios,
)
from jaxalign.losses.process_reward import process_reward_loss
from jaxalign.losses.reinforce import reinforce_loss, rloo_loss
from jaxalign.losses.sapo import sapo_loss
from jaxalign.losses.simpo import simpo_loss
from jaxalign.losses.sppo import sppo_hard_loss
from jaxalign.losses.tpo import tpo_l_loss, tpo_loss
from jaxalign.losses.vespo import vespo_weights
from jaxalign.losses.wpo import wpo_weights
from jaxalign.losses.xpo import xpo_loss

__all__ = [
    "RunningMean",
    "alpha_score",
    "alphapo_loss",
    "aot_loss",
    "aot_unpaired_loss",
    "apo_down_loss",
    "apo_zero_loss",
    "apo_zero_unpaired_loss",
    "averaged_ipo_loss",
    "bco_loss",
    "bco_pair_loss",
    "bradley_terry_loss",
    "centering_penalty",
    "cispo_loss",
    "constant_length",
    "cpo_loss",
    "cross_entropy_loss",
    "density_ratios",
    "discopop_loss",
    "dpo_loss",
    "each_token",
    "exo_pair_loss",
    "f_dpo_loss",
    "forward_kl_loss",
    "forward_kl_score",
    "generalised_jsd_loss",
    "gmpo_loss",
    "grpo_loss",
    "hinge_loss",
    "implicit_rewards",
    "ipo_loss",
    "jensen_shannon_score",
    "kto_kl",
    "kto_loss",
    "length_desensitised_logps",
    "length_normalised_dpo_loss",
    "log_odds",
    "log_ratios",
    "masked_importance_weights",
    "mixture_logits",
    "nash_md_loss",
    "nca_pair_loss",
    "no_reference",
    "on_policy_rows",
    "orpo_loss",
    "per_token",
    "plackett_luce_loss",
    "ppo_loss",
    "ppo_policy_clipped",
    "ppo_policy_loss",
    "ppo_value_clipped",
    "ppo_value_loss",
    "probability_ratios",
    "process_reward_loss",
    "ranked",
    "reinforce_loss",
    "reverse_kl_loss",
    "reverse_kl_score",
    "rloo_loss",
    "robust_dpo_loss",
    "running_shift",
    "sapo_loss",
    "sequence_log_ratios",
    "sequence_mean",
    "sequence_sum",
    "simpo_loss",
    "sppo_hard_loss",
    "token_log_ratios",
    "token_mean",
    "top_entropy_mask",
    "tpo_l_loss",
    "tpo_loss",
    "truncated_importance_weights",
    "vespo_weights",
    "without_truncated",
    "wpo_weights",
    "xpo_loss",
]
