"""Examples of what `jaxalign/losses/tpo.py` offers."""

import numpy as np

import jaxalign
from tests.cases import draws
from tests.cases.case import Case, by_rows
from tests.cases.pairs import extreme_pair_and_lengths, pair_and_lengths, refused
from tests.oracles import tpo


def gold(rng, scale=3.0):
    """A third response; one of the four is empty, one a single token."""
    return {"gold_logps": draws.sums(rng, scale), "gold_lengths": np.array([3.0, 0.0, 1.0, 7.0])}


def triple(rng):
    return {"policy": draws.pair(rng)} | gold(rng)


def extreme_triple(rng):
    return {"policy": draws.extreme_pairs(rng)["policy"]} | gold(rng, 1e4)


CASES = (
    Case(
        function=jaxalign.tpo_loss,
        draw=triple,
        extremes=extreme_triple,
        oracle=by_rows(tpo.tpo_loss),
        settings=({"beta": 0.3}, {"beta": 1.5, "nll_coef": 0.4, "label_smoothing": 0.2}),
        trained=("policy", "gold_logps"),
        invalid=refused(beta=0.3),
    ),
    Case(
        function=jaxalign.tpo_l_loss,
        draw=lambda rng: pair_and_lengths(rng) | gold(rng),
        extremes=lambda rng: extreme_pair_and_lengths(rng) | gold(rng, 1e4),
        oracle=by_rows(tpo.tpo_l_loss),
        settings=(
            {"beta": 2.0, "gamma": 0.7},
            {"beta": 0.4, "gamma": -0.3, "nll_coef": 0.4, "label_smoothing": 0.2},
        ),
        trained=("policy", "gold_logps"),
        invalid=refused(beta=2.0, gamma=1.0),
    ),
)
