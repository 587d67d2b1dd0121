"""Pairs of responses under policy and reference, or under the policy alone."""

from tests.cases import draws

PAIRED = {
    "draw": draws.two_pairs,
    "extremes": draws.extreme_pairs,
    "trained": ("policy",),
    "frozen": ("reference",),
}


def refused(**settings):
    """The shares of flipped labels that every smoothed loss refuses."""
    return tuple(
        (settings | {"label_smoothing": share}, "label_smoothing must be in [0, 0.5)")
        for share in (-0.1, 0.5, 0.6)
    )


SETTINGS = ({"beta": 0.3}, {"beta": 1.5})

SMOOTHED = ({"beta": 0.3}, {"beta": 1.5, "label_smoothing": 0.2})


def with_lengths(rng):
    return draws.two_pairs(rng) | {"lengths": draws.lengths(rng)}


def extremes_with_lengths(rng):
    return draws.extreme_pairs(rng) | {"lengths": draws.lengths(rng)}


LONG = PAIRED | {"draw": with_lengths, "extremes": extremes_with_lengths}


def pair_and_lengths(rng):
    return {"policy": draws.pair(rng), "lengths": draws.lengths(rng)}


def extreme_pair_and_lengths(rng):
    return {"policy": draws.extreme_pairs(rng)["policy"], "lengths": draws.lengths(rng)}


LONG_ALONE = {
    "draw": pair_and_lengths,
    "extremes": extreme_pair_and_lengths,
    "trained": ("policy",),
}
