"""Jung et al. 2024: binary cross-entropy of rewards less their running mean; density ratios."""

import math

from tests.oracles.logistic import log_sigmoid
from tests.oracles.preferences import implicit_rewards
from tests.oracles.statistics import masked_values


def running_mean(mean: float, count: float, rewards, mask) -> tuple[float, float]:
    """Of `count` rewards seen before and the unmasked ones."""
    kept = masked_values(rewards, mask)
    seen = count + len(kept)
    return (math.fsum([mean * count, *kept]) / seen if seen else mean), seen


def bco_loss(policy, reference, good, *, beta, shift) -> float:
    shifted = beta * (policy - reference) - shift
    return -log_sigmoid(shifted) if good else -log_sigmoid(-shifted)


def bco_pair_loss(*logps, beta, shift) -> float:
    chosen, rejected = implicit_rewards(*logps, beta=beta)
    return -log_sigmoid(chosen - shift) - log_sigmoid(-(rejected - shift))


def density_ratio(probability: float, *, lowest: float, highest: float) -> float:
    ratio = probability / (1 - probability) if probability < 1 else math.inf
    return min(max(ratio, lowest), highest)
