"""Examples of what `jaxalign/losses/gspo.py` offers."""

import jaxalign
from tests.cases.case import Case
from tests.cases.decisions import responses
from tests.oracles import policy_gradients as oracle

CASES = (
    Case(
        function=jaxalign.sequence_log_ratios,
        fixed_rank=True,
        draw=lambda rng: {n: x for n, x in responses(rng).items() if n != "advantages"},
        oracle=oracle.sequence_log_ratios,
        trained=("logps",),
        frozen=("behaviour_logps",),
        masked=("logps", "behaviour_logps"),
    ),
    Case(
        function=jaxalign.token_log_ratios,
        fixed_rank=True,
        draw=lambda rng: {n: x for n, x in responses(rng).items() if n != "advantages"},
        oracle=oracle.sequence_log_ratios,
        trained=("logps",),
        frozen=("behaviour_logps",),
        order=0,
    ),
)
