"""Rankings: Rafailov et al. 2023, Eq. 18. The best is drawn first, then the best of the rest."""

import math


def plackett_luce_loss(scores: list[float]) -> float:
    """Scores of one row, the best candidate first."""
    loss = 0.0
    for k, score in enumerate(scores):
        top = max(scores[k:])
        loss += top + math.log(math.fsum(math.exp(s - top) for s in scores[k:])) - score
    return loss
