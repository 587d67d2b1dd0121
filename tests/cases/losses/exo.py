"""Examples of what `jaxalign/losses/exo.py` offers."""

import jaxalign
from tests.cases.case import Case, by_rows
from tests.cases.pairs import PAIRED
from tests.oracles import exo

CASES = (
    Case(
        function=jaxalign.exo_pair_loss,
        oracle=by_rows(exo.exo_pair_loss),
        settings=(
            {"beta": 0.3, "label_smoothing": 0.2},
            {"beta": 1.5, "label_smoothing": 0.001},
        ),
        invalid=tuple(
            ({"beta": 0.1, "label_smoothing": share}, "label_smoothing must be in (0, 0.5)")
            for share in (-0.1, 0.0, 0.5, 0.6)
        ),
        **PAIRED,
    ),
)
