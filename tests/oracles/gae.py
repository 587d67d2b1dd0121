"""GAE as the explicit sum of discounted residuals (Schulman et al. 2016, Eq. 16): no recursion."""

import numpy as np


def gae(
    rewards,
    values,
    mask,
    gamma: float,
    gae_lambda: float,
    terminations=None,
    truncations=None,
    final_values=None,
    bootstrap_values=None,
):
    """A_t = sum_l (gamma lambda)^l delta_{t+l} over the unmasked steps left in the episode."""
    shape = np.shape(mask)
    terminations = np.zeros(shape, bool) if terminations is None else terminations
    truncations = np.zeros(shape, bool) if truncations is None else truncations
    bootstrap_values = np.zeros(shape[0]) if bootstrap_values is None else bootstrap_values
    advantages, returns = np.zeros(shape), np.zeros(shape)
    for b in range(shape[0]):
        steps = [t for t in range(shape[1]) if mask[b][t]]
        for place, start in enumerate(steps):
            total, weight = 0.0, 1.0
            for position, t in enumerate(steps[place:], start=place):
                if terminations[b][t]:
                    after = 0.0
                elif truncations[b][t]:
                    after = final_values[b][t]
                elif position + 1 < len(steps):
                    after = values[b][steps[position + 1]]
                else:
                    after = bootstrap_values[b]
                total += weight * (rewards[b][t] + gamma * after - values[b][t])
                weight *= gamma * gae_lambda
                if terminations[b][t] or truncations[b][t]:
                    break
            advantages[b, start] = total
            returns[b, start] = total + values[b][start]
    return advantages, returns


def shaped_rewards(scores, kl, mask, kl_coef: float) -> np.ndarray:
    """Ziegler et al. 2019, Eq. 2, by token."""
    rewards = np.zeros(np.shape(mask))
    for b, row in enumerate(mask):
        steps = [t for t, real in enumerate(row) if real]
        for t in steps:
            rewards[b, t] = -kl_coef * kl[b][t] + (scores[b] if t == steps[-1] else 0.0)
    return rewards
