"""Examples of what `jaxalign/losses/hinge.py` offers."""

import jaxalign
from tests.cases.case import Case, by_rows
from tests.cases.pairs import PAIRED, SETTINGS
from tests.oracles import slic

CASES = (
    Case(
        function=jaxalign.hinge_loss,
        oracle=by_rows(slic.hinge_loss),
        settings=SETTINGS,
        **PAIRED,
    ),
)
