"""Random episodes, off policy and with masked steps."""

import numpy as np


def draw(seed, rows=6, steps=9):
    """Rewards, values, mask with holes; ends of both kinds, of rollouts that go on; log-ratios."""
    rng = np.random.default_rng(seed)
    rewards, values, final_values, log_ratios = rng.normal(size=(4, rows, steps))
    mask = rng.random((rows, steps)) < 0.7
    mask[0], mask[1, 1:] = False, False
    flags = rng.random((2, rows, steps)) < 0.15
    ends = {
        "terminations": flags[0],
        "truncations": flags[1],
        "final_values": final_values,
        "bootstrap_values": rng.normal(size=rows),
    }
    return (rewards, values, mask), ends, log_ratios
