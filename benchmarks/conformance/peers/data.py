"""The small ragged data set that every library trains on, and what is true of it."""

import numpy as np

VOCABULARY = 32
PAD, BOS, EOS = 0, 1, 2
WIDTH, HEADS, LAYERS, POSITIONS = 16, 2, 2, 64


def tokens(seed: int, count: int) -> list[int]:
    """Ordinary ids."""
    return np.random.default_rng(seed).integers(3, VOCABULARY, count).tolist()


def responses(seed: int, lengths) -> list[list[int]]:
    """Responses of given lengths, EOS included."""
    return [[*tokens(seed + i, length - 1), EOS] for i, length in enumerate(lengths)]


# Prompts and responses differ in length, or a mean of means would be the mean.
PROMPTS = [tokens(i, length) for i, length in enumerate((3, 5, 2, 4))]
CHOSEN = responses(10, (2, 9, 5, 3))
REJECTED = responses(20, (7, 3, 4, 8))
LABELS = [True, False, False, True]
# Two prompts with two responses each, for policy gradients.
GROUP_PROMPTS = [PROMPTS[0], PROMPTS[0], PROMPTS[1], PROMPTS[1]]
GROUP_REWARDS = [1.0, 0.0, 0.25, 1.0]
# Right-padded response masks of three rows.
MASK = np.arange(6) < np.array([[2], [6], [3]])
LOG_RATIOS = np.random.default_rng(3).normal(0, 0.05, (3, 6))
ADVANTAGES = np.array([0.5, -1.0, 1.5])
