"""Examples of what `jaxalign/losses/length_normalised_dpo.py` offers."""

import jaxalign
from tests.cases import draws
from tests.cases.case import Case, by_rows
from tests.cases.pairs import LONG, SMOOTHED, refused
from tests.oracles import length_normalisation

CASES = (
    Case(
        function=jaxalign.per_token,
        draw=lambda rng: {"logps": draws.pair(rng), "lengths": draws.lengths(rng)},
        oracle=by_rows(length_normalisation.per_token),
        trained=("logps",),
    ),
    Case(
        function=jaxalign.length_normalised_dpo_loss,
        oracle=by_rows(length_normalisation.length_normalised_dpo_loss),
        settings=SMOOTHED,
        invalid=refused(beta=0.1),
        **LONG,
    ),
)
