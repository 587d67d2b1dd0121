"""Hong et al. 2024: odds (Eq. 4), the loss (Eqs. 6 and 7)."""

import math

from tests.oracles.length_normalisation import per_token
from tests.oracles.logistic import log_sigmoid


def log_odds(logp: float) -> float:
    """log(p / (1 - p)), p at most exp(-1e-30)."""
    logp = min(logp, -1e-30)
    return logp - (math.log(-math.expm1(logp)) if logp > -0.1 else math.log1p(-math.exp(logp)))


def orpo_loss(*logps_and_lengths, beta: float, nll_coef: float = 1.0) -> float:
    chosen, rejected = per_token(*logps_and_lengths)
    ratio = -log_sigmoid(log_odds(chosen) - log_odds(rejected))
    return nll_coef * -chosen + beta * ratio
