"""Examples of what `jaxalign/losses/orpo.py` offers."""

import numpy as np

import jaxalign
from tests.cases import draws
from tests.cases.case import Case, by_entries, by_rows
from tests.cases.pairs import LONG_ALONE
from tests.oracles import orpo

CASES = (
    Case(
        function=jaxalign.log_odds,
        draw=lambda rng: {"average_logps": draws.sums(rng) - 0.5},
        extremes=lambda rng: {"average_logps": np.array([-1e4, 0.0, -1e-31, -1e-20])},
        oracle=by_entries(orpo.log_odds),
        trained=("average_logps",),
    ),
    Case(
        function=jaxalign.orpo_loss,
        oracle=by_rows(orpo.orpo_loss),
        settings=({"beta": 0.3}, {"beta": 1.5, "nll_coef": 0.4}),
        **LONG_ALONE,
    ),
)
