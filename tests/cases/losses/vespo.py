"""Examples of what `jaxalign/losses/vespo.py` offers."""

import jaxalign
from tests.cases.case import Case
from tests.cases.decisions import extreme_responses, responses
from tests.oracles import policy_gradients as oracle

CASES = (
    Case(
        function=jaxalign.vespo_weights,
        fixed_rank=True,
        draw=responses,
        extremes=extreme_responses,
        oracle=oracle.vespo,
        settings=({}, {"positive": (1.5, 0.5), "negative": (0.5, 2.5)}),
        frozen=("logps", "behaviour_logps", "advantages"),
        masked=("logps", "behaviour_logps"),
        order=0,
    ),
)
