"""Wang et al. 2023: DPO with f'(pi / pi_ref) in the place of the log-ratio; f' from their table.

Constants, which cancel in differences, are such that f'(1) = 0.
"""

import math

from tests.oracles.precision import KNEE, saturating_exp
from tests.oracles.preferences import log_ratios, logistic_loss


def reverse_kl_score(log_t: float) -> float:
    return log_t


def forward_kl_score(log_t: float) -> float:
    return alpha_score(log_t, 1.0)


def jensen_shannon_score(log_t: float) -> float:
    """log(2 t / (1 + t))"""
    if log_t < -KNEE:
        return math.log(2) + log_t
    return math.log(2 / (math.exp(-log_t) + 1))


def alpha_score(log_t: float, alpha: float) -> float:
    """(1 - t^-alpha) / alpha"""
    exponent = -alpha * log_t
    power_less_one = math.expm1(exponent) if exponent < 1 else saturating_exp(exponent) - 1
    return -power_less_one / alpha


def f_dpo_loss(*logps, beta: float, score, label_smoothing: float = 0.0) -> float:
    chosen, rejected = log_ratios(*logps)
    return logistic_loss(beta * score(chosen) - beta * score(rejected), label_smoothing)
