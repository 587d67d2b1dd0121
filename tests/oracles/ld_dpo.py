"""Liu et al. 2024: what exceeds the length that both responses have counts alpha."""


def length_desensitised_logps(token_logps, mask, public_length, alpha: float) -> float:
    """Of one row."""
    total, seen = 0.0, 0
    for logp, real in zip(token_logps, mask, strict=True):
        if real:
            seen += 1
            total += logp if seen <= public_length else alpha * logp
    return total
