"""Scores of responses before they become rewards."""

import numpy as np


def missing_eos_penalty(scores, tokens, mask, *, eos_id, penalty):
    """Huang et al. 2024, "EOS trick": a response without an end loses."""
    found = []
    for score, row, real in zip(scores, tokens, mask, strict=True):
        response = [token for token, m in zip(row, real, strict=True) if m]
        found.append(score - penalty if response and eos_id not in response else score)
    return np.array(found)


def overlong_penalty(length, *, longest, cache):
    """Yu et al. 2025, Eq. 13: the three cases of one response."""
    if length <= longest - cache:
        return 0.0
    if length <= longest:
        return ((longest - cache) - length) / cache
    return -1.0
