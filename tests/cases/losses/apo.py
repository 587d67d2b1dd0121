"""Examples of what `jaxalign/losses/apo.py` offers."""

import jaxalign
from tests.cases.case import Case, by_rows
from tests.cases.labels import extreme_labelled, labelled
from tests.cases.pairs import PAIRED, SETTINGS
from tests.oracles import apo

UNPAIRED = {
    "draw": labelled,
    "extremes": extreme_labelled,
    "trained": ("policy_logps",),
    "frozen": ("reference_logps",),
}

CASES = (
    Case(
        function=jaxalign.apo_zero_loss,
        oracle=by_rows(apo.apo_zero_loss),
        settings=SETTINGS,
        **PAIRED,
    ),
    Case(
        function=jaxalign.apo_down_loss,
        oracle=by_rows(apo.apo_down_loss),
        settings=SETTINGS,
        **PAIRED,
    ),
    Case(
        function=jaxalign.apo_zero_unpaired_loss,
        oracle=by_rows(apo.apo_zero_unpaired_loss),
        settings=({"beta": 0.3}, {"beta": 1.5}),
        **UNPAIRED,
    ),
)
