"""Losses on pairs: Bradley-Terry, DPO (Rafailov et al. 2023, Eq. 7), cDPO, robust DPO."""

import math


def log_sigmoid(x: float) -> float:
    """log(1 / (1 + exp(-x)))"""
    return -math.log1p(math.exp(-x)) if x > 0 else x - math.log1p(math.exp(x))


def bradley_terry_loss(chosen: float, rejected: float, margin: float = 0.0) -> float:
    return -log_sigmoid(chosen - rejected - margin)


def margin(chosen, rejected, reference_chosen, reference_rejected, beta: float) -> float:
    return beta * (chosen - reference_chosen) - beta * (rejected - reference_rejected)


def dpo_loss(*logps, beta: float, label_smoothing: float = 0.0) -> float:
    u = margin(*logps, beta)
    return -(1 - label_smoothing) * log_sigmoid(u) - label_smoothing * log_sigmoid(-u)


def robust_dpo_loss(*logps, beta: float, label_smoothing: float) -> float:
    u, e = margin(*logps, beta), label_smoothing
    return (-(1 - e) * log_sigmoid(u) + e * log_sigmoid(-u)) / (1 - 2 * e)
