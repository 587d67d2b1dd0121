"""Examples of what `jaxalign/losses/alphapo.py` offers."""

import jaxalign
from tests.cases.case import Case, by_rows
from tests.cases.pairs import LONG_ALONE, refused
from tests.oracles import alphapo

CASES = (
    Case(
        function=jaxalign.alphapo_loss,
        oracle=by_rows(alphapo.alphapo_loss),
        settings=(
            {"beta": 2.0, "gamma": 0.7, "alpha": 0.25},
            {"beta": 0.4, "gamma": -0.3, "alpha": -0.5, "label_smoothing": 0.2},
        ),
        invalid=(
            *refused(beta=2.0, gamma=1.0, alpha=0.25),
            ({"beta": 2.0, "gamma": 1.0, "alpha": 0.0}, "alpha must not be 0"),
        ),
        **LONG_ALONE,
    ),
)
