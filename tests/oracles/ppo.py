"""PPO's losses, literally as printed: Schulman et al. 2017, Eq. 7; dual clip: Ye et al. 2020."""

import math


def policy_loss(logp, behaviour_logp, advantage, low, high, dual_clip=None) -> float:
    ratio = math.exp(logp - behaviour_logp)
    clipped = min(max(ratio, 1 - low), 1 + high)
    objective = min(ratio * advantage, clipped * advantage)
    if dual_clip is not None and advantage < 0:
        objective = max(objective, dual_clip * advantage)
    return -objective


def value_loss(value, behaviour_value, target, clip=None) -> float:
    if clip is None:
        return (value - target) ** 2 / 2
    moved = behaviour_value + min(max(value - behaviour_value, -clip), clip)
    return max((value - target) ** 2, (moved - target) ** 2) / 2
