"""Gupta et al. 2025: SimPO with the reward beta (1 - p^-alpha) / alpha of p = pi(y)^(1 / |y|)."""

from tests.oracles.f_dpo import alpha_score
from tests.oracles.length_normalisation import per_token
from tests.oracles.preferences import logistic_loss


def alphapo_loss(*logps_and_lengths, beta, gamma, alpha, label_smoothing: float = 0.0) -> float:
    chosen, rejected = (beta * alpha_score(x, alpha) for x in per_token(*logps_and_lengths))
    return logistic_loss(chosen - rejected - gamma, label_smoothing)
