"""Losses on pairs: Bradley-Terry, DPO (Rafailov et al. 2023, Eq. 7), cDPO, robust DPO."""

from tests.oracles.logistic import log_sigmoid


def bradley_terry_loss(difference: float, margin: float = 0.0) -> float:
    return -log_sigmoid(difference - margin)


def centering_penalty(chosen: float, rejected: float) -> float:
    """Eisenstein et al. 2023."""
    return (chosen + rejected) * (chosen + rejected)


def log_ratios(chosen, rejected, reference_chosen, reference_rejected) -> tuple[float, float]:
    return chosen - reference_chosen, rejected - reference_rejected


def implicit_rewards(*logps, beta: float) -> tuple[float, float]:
    """Eq. 5, less the constant of the prompt."""
    chosen, rejected = log_ratios(*logps)
    return beta * chosen, beta * rejected


def margin(*logps, beta: float) -> float:
    chosen, rejected = implicit_rewards(*logps, beta=beta)
    return chosen - rejected


def logistic_loss(u: float, label_smoothing: float) -> float:
    """Mitchell 2023: the label is wrong with that probability."""
    return -(1 - label_smoothing) * log_sigmoid(u) - label_smoothing * log_sigmoid(-u)


def dpo_loss(*logps, beta: float, label_smoothing: float = 0.0) -> float:
    return logistic_loss(margin(*logps, beta=beta), label_smoothing)


def robust_dpo_loss(*logps, beta: float, label_smoothing: float) -> float:
    """Chowdhury et al. 2024."""
    u, e = margin(*logps, beta=beta), label_smoothing
    return (-(1 - e) * log_sigmoid(u) + e * log_sigmoid(-u)) / (1 - 2 * e)
