"""Examples of what `jaxalign/losses/discopop.py` offers."""

import jaxalign
from tests.cases.case import Case, by_rows
from tests.cases.pairs import PAIRED
from tests.oracles import discopop

CASES = (
    Case(
        function=jaxalign.discopop_loss,
        oracle=by_rows(discopop.discopop_loss),
        settings=({"beta": 0.3}, {"beta": 0.05}, {"beta": 0.5, "temperature": 2.0}),
        **PAIRED,
    ),
)
