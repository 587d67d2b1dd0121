"""Examples of what `jaxalign/losses/ipo.py` offers."""

import jaxalign
from tests.cases.case import Case, by_rows
from tests.cases.pairs import LONG, PAIRED, SETTINGS
from tests.oracles import ipo

CASES = (
    Case(
        function=jaxalign.ipo_loss,
        oracle=by_rows(ipo.ipo_loss),
        settings=SETTINGS,
        **PAIRED,
    ),
    Case(
        function=jaxalign.averaged_ipo_loss,
        oracle=by_rows(ipo.averaged_ipo_loss),
        settings=SETTINGS,
        **LONG,
    ),
)
