"""Azar et al. 2023, Eq. 17: the margin of log-ratios regressed on 1 / (2 tau)."""

from tests.oracles.length_normalisation import per_token
from tests.oracles.preferences import log_ratios


def ipo_loss(*logps, beta: float) -> float:
    chosen, rejected = log_ratios(*logps)
    return (chosen - rejected - 0.5 / beta) ** 2


def averaged_ipo_loss(*logps_and_lengths, beta: float) -> float:
    chosen, rejected = per_token(*log_ratios(*logps_and_lengths[:4]), *logps_and_lengths[4:])
    return (chosen - rejected - 0.5 / beta) ** 2
