"""Zhou et al. 2024, Eq. 2: the geometric mean of token probabilities; weight alignment divides
each by the policy's chance to draw one token twice.
"""

from tests.oracles.precision import saturating_exp


def wpo_weight(token_logps, mask, log_collisions=None) -> float:
    """Of one row."""
    kept = [t for t, real in enumerate(mask) if real]
    if not kept:
        return 1.0
    total = sum(
        token_logps[t] - (log_collisions[t] if log_collisions is not None else 0) for t in kept
    )
    return saturating_exp(total / len(kept))
