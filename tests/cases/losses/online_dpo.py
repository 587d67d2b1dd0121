"""Examples of what `jaxalign/losses/online_dpo.py` offers."""

import numpy as np

import jaxalign
from tests.cases import draws
from tests.cases.case import Case, by_rows
from tests.oracles import online_dpo


def judged(rng):
    """The first better, a tie, the second better, the first better."""
    return {
        "first": draws.sums(rng),
        "second": draws.sums(rng),
        "first_scores": np.array([1.0, 2.0, -3.0, 0.5]),
        "second_scores": np.array([0.0, 2.0, -1.0, -0.5]),
    }


CASES = (
    Case(
        function=jaxalign.ranked,
        draw=judged,
        oracle=by_rows(online_dpo.ranked),
        trained=("first", "second"),
        frozen=("first_scores", "second_scores"),
    ),
)
