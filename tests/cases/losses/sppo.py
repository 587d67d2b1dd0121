"""Examples of what `jaxalign/losses/sppo.py` offers."""

import jaxalign
from tests.cases.case import Case, by_rows
from tests.cases.pairs import PAIRED, SETTINGS
from tests.oracles import sppo

CASES = (
    Case(
        function=jaxalign.sppo_hard_loss,
        oracle=by_rows(sppo.sppo_hard_loss),
        settings=SETTINGS,
        **PAIRED,
    ),
)
