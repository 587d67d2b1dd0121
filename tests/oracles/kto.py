"""Ethayarajh et al. 2024: the reference point (Sec. 4.1) and the loss lambda_y - v (Eq. 8)."""

from tests.oracles.logistic import sigmoid
from tests.oracles.statistics import masked_mean


def kto_kl(policy, reference, weights) -> float:
    return max(0.0, masked_mean(policy - reference, weights))


def kto_loss(
    policy, reference, good, *, kl, beta, desirable_weight=1.0, undesirable_weight=1.0
) -> float:
    reward = policy - reference
    if good:
        return desirable_weight - desirable_weight * sigmoid(beta * (reward - kl))
    return undesirable_weight - undesirable_weight * sigmoid(beta * (kl - reward))
