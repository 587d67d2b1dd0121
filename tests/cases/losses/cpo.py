"""Examples of what `jaxalign/losses/cpo.py` offers."""

import jaxalign
from tests.cases.case import Case, by_rows
from tests.cases.pairs import LONG_ALONE, refused
from tests.oracles import cpo

CASES = (
    Case(
        function=jaxalign.cpo_loss,
        oracle=by_rows(cpo.cpo_loss),
        settings=({"beta": 0.3}, {"beta": 1.5, "nll_coef": 0.4, "label_smoothing": 0.2}),
        invalid=refused(beta=0.3),
        **LONG_ALONE,
    ),
)
