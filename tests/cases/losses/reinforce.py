"""Examples of what `jaxalign/losses/reinforce.py` offers."""

import jaxalign
from tests.cases.case import Case, by_entries
from tests.cases.decisions import BAD_CLIPS, RESPONSES, decisions
from tests.oracles import policy_gradients as oracle

CASES = (
    Case(
        function=jaxalign.reinforce_loss,
        draw=lambda rng: {name: x for name, x in decisions(rng).items() if "behaviour" not in name},
        oracle=by_entries(lambda logp, advantage: -advantage * logp),
        trained=("logps",),
        frozen=("advantages",),
    ),
    Case(
        function=jaxalign.rloo_loss,
        fixed_rank=True,
        oracle=oracle.rloo,
        settings=({"clip_range": 0.2}, {"clip_range": (0.05, 0.4)}),
        invalid=BAD_CLIPS,
        **RESPONSES | {"extremes": None},
    ),
)
