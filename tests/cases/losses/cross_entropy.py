"""Examples of what `jaxalign/losses/cross_entropy.py` offers."""

import jaxalign
from tests.cases import draws
from tests.cases.case import Case, by_entries

CASES = (
    Case(
        function=jaxalign.cross_entropy_loss,
        draw=lambda rng: {"token_logps": draws.tokens(rng)},
        extremes=lambda rng: {"token_logps": draws.tokens(rng, 1e4)},
        oracle=by_entries(lambda logp: -logp),
        trained=("token_logps",),
    ),
)
