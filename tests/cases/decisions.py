"""Log-probabilities of the policy's own decisions under policy and behaviour, and advantages."""

import numpy as np

from tests.cases import draws

BAD_CLIPS = (
    ({"clip_range": 0.0}, "clip_range must be above 0"),
    ({"clip_range": (0.2, 0.0)}, "clip_range must be above 0"),
    ({"clip_range": (0.0, 0.2)}, "clip_range must be above 0"),
)

BAD_DUAL = ({"clip_range": (0.2, 0.3), "dual_clip": 1.3}, "dual_clip must be above 1")


def logps(rng):
    """Policy and behaviour, some tokens far apart and some the same."""
    behaviour = draws.tokens(rng)
    moved = behaviour + rng.choice([-0.7, -0.1, 0.0, 0.1, 0.7], draws.SHAPE) * rng.uniform(
        0.9, 1.1, draws.SHAPE
    )
    return {"logps": moved, "behaviour_logps": behaviour}


def decisions(rng):
    """Advantages of both signs and 0."""
    return logps(rng) | {
        "advantages": np.where(rng.random(draws.SHAPE) < 0.1, 0, rng.normal(size=draws.SHAPE))
    }


def responses(rng):
    advantages = np.array([1.3, -0.4, -1.1, 0.7])
    return logps(rng) | {"mask": draws.mask(rng), "advantages": advantages}


def extreme_logps():
    return {
        "logps": np.broadcast_to([-1e4, -1.0, 0.0, -30.0, -2.0], draws.SHAPE),
        "behaviour_logps": np.broadcast_to([-1.0, -1e4, 0.0, -1.0, -2.0], draws.SHAPE),
    }


def extreme_decisions(rng):
    return extreme_logps() | {"advantages": np.where(rng.random(draws.SHAPE) < 0.3, 0.0, 1.0)}


def extreme_responses(rng):
    given = extreme_logps()
    given["logps"] = given["logps"] * np.array([[1.0], [0.0], [1.0], [0.1]])
    return given | {"mask": draws.mask(rng), "advantages": np.array([1.0, -1.0, -1.0, 0.0])}


TOKENS = {"draw": decisions, "trained": ("logps",), "frozen": ("behaviour_logps", "advantages")}

RESPONSES = TOKENS | {
    "draw": responses,
    "extremes": extreme_responses,
    "masked": ("logps", "behaviour_logps"),
}

POLICY = (
    {"clip_range": 0.2},
    {"clip_range": (0.05, 0.3)},
    {"clip_range": (0.3, 0.05), "dual_clip": 1.5},
)
