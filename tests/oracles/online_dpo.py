"""Guo et al. 2024, Alg. 1: of two responses the judge's favourite is the chosen one."""


def ranked(first, second, first_score, second_score) -> tuple[float, float, float]:
    """Chosen, rejected, and the weight of the pair, 0 for a tie."""
    if first_score == second_score:
        return first, second, 0.0
    return (first, second, 1.0) if first_score > second_score else (second, first, 1.0)
