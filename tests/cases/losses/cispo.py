"""Examples of what `jaxalign/losses/cispo.py` offers."""

import jaxalign
from tests.cases.case import Case, by_entries
from tests.cases.decisions import TOKENS, extreme_decisions
from tests.oracles import policy_gradients as oracle

CASES = (
    Case(
        function=jaxalign.cispo_loss,
        extremes=extreme_decisions,
        oracle=by_entries(oracle.cispo),
        settings=({"highest": 1.2}, {"highest": 1.5, "lowest": 0.8}),
        invalid=(
            ({"highest": 0.0}, "highest must be above lowest"),
            ({"highest": 1.0, "lowest": -0.1}, "lowest must be at least 0"),
            ({"highest": 1.0, "lowest": 1.0}, "highest must be above lowest"),
        ),
        order=0,
        **TOKENS,
    ),
)
