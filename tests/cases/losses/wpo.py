"""Examples of what `jaxalign/losses/wpo.py` offers."""

import jaxalign
from tests.cases import draws
from tests.cases.case import Case, by_lists
from tests.oracles import wpo

CASES = (
    Case(
        function=jaxalign.wpo_weights,
        draw=lambda rng: draws.responses(rng) | {"log_collisions": draws.tokens(rng, 0.5)},
        extremes=lambda rng: draws.responses(rng) | {"log_collisions": draws.tokens(rng, 1e4)},
        oracle=by_lists(wpo.wpo_weight),
        settings=({}, {"log_collisions": None}),
        frozen=("token_logps", "log_collisions"),
        masked=("token_logps", "log_collisions"),
        order=0,
    ),
)
