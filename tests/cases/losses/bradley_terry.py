"""Examples of what `jaxalign/losses/bradley_terry.py` offers."""

import numpy as np

import jaxalign
from tests.cases import draws
from tests.cases.case import ROWS, Case, by_entries, by_rows
from tests.oracles import preferences


def bradley_terry(differences, *, margins=0.0):
    margins = np.broadcast_to(margins, np.shape(differences))
    return by_entries(preferences.bradley_terry_loss)(differences, margins)


CASES = (
    Case(
        function=jaxalign.bradley_terry_loss,
        draw=lambda rng: {"differences": rng.normal(0.0, 3.0, ROWS)},
        extremes=lambda rng: {"differences": np.array([1e4, -1e4, 0.0, 1.0])},
        oracle=bradley_terry,
        settings=({}, {"margins": np.array([0.5, -1.0, 0.0, 2.0])}, {"margins": 0.7}),
        trained=("differences",),
    ),
    Case(
        function=jaxalign.centering_penalty,
        draw=lambda rng: {"chosen": rng.normal(size=ROWS), "rejected": rng.normal(size=ROWS)},
        extremes=lambda rng: {"chosen": draws.sums(rng, 1e4), "rejected": draws.sums(rng, 1e4)},
        oracle=by_rows(preferences.centering_penalty),
        trained=("chosen", "rejected"),
    ),
)
