"""Examples of what `jaxalign/losses/sapo.py` offers."""

import jaxalign
from tests.cases.case import Case, by_entries
from tests.cases.decisions import TOKENS, extreme_decisions
from tests.oracles import policy_gradients as oracle

CASES = (
    Case(
        function=jaxalign.sapo_loss,
        extremes=extreme_decisions,
        oracle=by_entries(oracle.sapo),
        settings=({}, {"positive_temperature": 0.5, "negative_temperature": 2.0}),
        invalid=(
            ({"positive_temperature": 0.0}, "positive_temperature must be above 0"),
            ({"negative_temperature": 0.0}, "negative_temperature must be above 0"),
        ),
        **TOKENS,
    ),
)
