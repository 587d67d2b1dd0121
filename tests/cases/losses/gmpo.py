"""Examples of what `jaxalign/losses/gmpo.py` offers."""

import jaxalign
from tests.cases.case import Case
from tests.cases.decisions import BAD_CLIPS, RESPONSES
from tests.oracles import policy_gradients as oracle

CASES = (
    Case(
        function=jaxalign.gmpo_loss,
        fixed_rank=True,
        oracle=oracle.gmpo,
        settings=({"clip_range": 0.4}, {"clip_range": (0.5, 0.05)}),
        invalid=BAD_CLIPS,
        **RESPONSES,
    ),
)
