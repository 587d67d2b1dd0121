"""Rewards, values and ends of episodes; scores of groups."""

from tests.cases import draws


def episodes(rng, scale=1.0):
    """Rewards and values with ends of both kinds, also on masked steps, and both at once."""
    rewards, values, final_values = scale * rng.normal(size=(3, *draws.SHAPE))
    terminations, truncations = rng.random((2, *draws.SHAPE)) < 0.25
    terminations[0], truncations[0] = False, False
    return {
        "rewards": rewards,
        "values": values,
        "mask": draws.mask(rng),
        "terminations": terminations,
        "truncations": truncations,
        "final_values": final_values,
        "bootstrap_values": scale * rng.normal(size=draws.ROWS),
    }


def with_ends(oracle):
    """An oracle that takes the four ends as a tuple."""

    def complete(*arrays, terminations, truncations, final_values, bootstrap_values, **settings):
        ends = (terminations, truncations, final_values, bootstrap_values)
        return oracle(*arrays, ends, **settings)

    return complete


def scores(rng):
    """Groups: of ties, empty, of one, of several."""
    found, mask = rng.normal(2.0, 3.0, draws.SHAPE), draws.mask(rng)
    found[0] = [9.0, 9.0, 1.0, 9.0, 2.0]
    return {"scores": found, "mask": mask}


def distinct(rng):
    return {"scores": rng.normal(2.0, 3.0, draws.SHAPE), "mask": draws.mask(rng)}


def big_scores(rng):
    return {"scores": 1e4 * rng.normal(size=draws.SHAPE), "mask": draws.mask(rng)}


EPISODES = {
    "draw": episodes,
    "extremes": lambda rng: episodes(rng, 1e4),
    "trained": ("rewards", "values"),
    "masked": ("rewards", "values", "final_values"),
    "settings": ({"gamma": 0.9, "gae_lambda": 0.7}, {"gamma": 1.0, "gae_lambda": 1.0}),
}
