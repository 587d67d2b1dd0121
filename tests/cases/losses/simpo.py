"""Examples of what `jaxalign/losses/simpo.py` offers."""

import jaxalign
from tests.cases.case import Case, by_rows
from tests.cases.pairs import LONG_ALONE, refused
from tests.oracles import simpo

CASES = (
    Case(
        function=jaxalign.simpo_loss,
        oracle=by_rows(simpo.simpo_loss),
        settings=(
            {"beta": 2.0, "gamma": 0.7},
            {"beta": 0.4, "gamma": -0.3, "label_smoothing": 0.2},
        ),
        invalid=refused(beta=2.0, gamma=1.0),
        **LONG_ALONE,
    ),
)
