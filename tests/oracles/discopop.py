"""Lu et al. 2024, Eq. 5: logistic and exponential loss, blended by a sigmoid of their argument."""

import math

from tests.oracles.logistic import log_sigmoid, sigmoid
from tests.oracles.precision import saturating_exp
from tests.oracles.preferences import margin


def discopop_loss(*logps, beta: float, temperature: float = 0.05) -> float:
    u = margin(*logps, beta=beta)
    if abs(u) < 300:
        share = sigmoid(u / temperature)
        return (1 - share) * -log_sigmoid(u) + share * math.exp(-u)
    exponential = saturating_exp(log_sigmoid(u / temperature) - u)
    return sigmoid(-u / temperature) * -log_sigmoid(u) + exponential
