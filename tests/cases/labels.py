"""Single responses that are good or bad, and a level that all of them share."""

import numpy as np

from tests.cases import draws

LABELS = np.array([True, False, True, False])


def labelled(rng):
    return {
        "policy_logps": draws.sums(rng),
        "reference_logps": draws.sums(rng),
        "labels": LABELS,
    }


def extreme_labelled(rng):
    return {
        "policy_logps": np.array([-1e4, -1e4, -1.0, 0.0]),
        "reference_logps": np.array([0.0, -1.0, -1e4, -1e4]),
        "labels": LABELS,
    }


def level(name, draw):
    """Draws and roles of a loss with a level that all rows share."""
    return {
        "draw": lambda rng: labelled(rng) | {name: np.asarray(draw(rng))},
        "extremes": lambda rng: extreme_labelled(rng) | {name: np.asarray(1e4 * draw(rng))},
        "shared": (name,),
        "trained": ("policy_logps",),
        "frozen": ("reference_logps", name),
    }
