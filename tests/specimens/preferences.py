"""Losses on pairs of responses."""

import jaxalign
from tests.oracles import preferences as oracle
from tests.specimens import draws
from tests.specimens.specimen import Specimen, by_rows

PAIRED = {
    "draw": draws.two_pairs,
    "extremes": draws.extreme_pairs,
    "trained": ("policy",),
    "frozen": ("reference",),
}
SMOOTHING = (({"beta": 0.1, "label_smoothing": 0.5}, "label_smoothing must be in [0, 0.5)"),)

SPECIMENS = (
    Specimen(
        function=jaxalign.dpo_loss,
        oracle=by_rows(oracle.dpo_loss),
        settings=({"beta": 0.3}, {"beta": 1.5, "label_smoothing": 0.2}),
        invalid=SMOOTHING,
        **PAIRED,
    ),
    Specimen(
        function=jaxalign.robust_dpo_loss,
        oracle=by_rows(oracle.robust_dpo_loss),
        settings=({"beta": 0.3, "label_smoothing": 0.2},),
        invalid=SMOOTHING,
        **PAIRED,
    ),
)
