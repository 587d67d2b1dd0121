"""Lightman et al. 2023: cross-entropy of the label of a step, soft or hard."""

from tests.oracles.logistic import log_sigmoid


def process_reward_loss(logit: float, label: float) -> float:
    return -label * log_sigmoid(logit) - (1 - label) * log_sigmoid(-logit)
