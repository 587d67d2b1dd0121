"""Examples of what `jaxalign/losses/nca.py` offers."""

import jaxalign
from tests.cases.case import Case, by_rows
from tests.cases.pairs import PAIRED, SETTINGS
from tests.oracles import nca

CASES = (
    Case(
        function=jaxalign.nca_pair_loss,
        oracle=by_rows(nca.nca_pair_loss),
        settings=SETTINGS,
        **PAIRED,
    ),
)
