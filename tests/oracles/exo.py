"""Ji et al. 2024, Eq. 16 for two responses: KL from the policy's preference to the label's."""

import math

from tests.oracles.logistic import log_sigmoid
from tests.oracles.preferences import margin


def exo_pair_loss(*logps, beta: float, label_smoothing: float) -> float:
    u = margin(*logps, beta=beta)
    labels = (1 - label_smoothing, label_smoothing)
    return sum(
        math.exp(log_p) * (log_p - math.log(label))
        for log_p, label in zip((log_sigmoid(u), log_sigmoid(-u)), labels, strict=True)
    )
