"""Examples of what `jaxalign/losses/grpo.py` offers."""

import numpy as np

import jaxalign
from tests.cases import draws
from tests.cases.case import Case
from tests.cases.decisions import BAD_CLIPS, BAD_DUAL, POLICY, logps
from tests.oracles import policy_gradients as oracle

CASES = (
    Case(
        function=jaxalign.each_token,
        fixed_rank=True,
        draw=lambda rng: {"advantages": rng.normal(size=draws.ROWS), "logps": draws.tokens(rng)},
        oracle=oracle.each_token,
        trained=("advantages",),
        frozen=("logps",),
    ),
    Case(
        function=jaxalign.grpo_loss,
        fixed_rank=True,
        draw=lambda rng: (
            logps(rng)
            | {"advantages": np.array([1.3, -0.4, 0.0, 0.7]), "kl": rng.random(draws.SHAPE)}
        ),
        oracle=oracle.grpo,
        settings=tuple(policy | {"kl_coef": 0.3} for policy in POLICY),
        trained=("logps", "kl"),
        frozen=("behaviour_logps", "advantages"),
        invalid=tuple((bad | {"kl_coef": 0.3}, said) for bad, said in (*BAD_CLIPS, BAD_DUAL)),
    ),
)
