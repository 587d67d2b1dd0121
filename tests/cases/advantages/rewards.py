"""Examples of what `jaxalign/advantages/rewards.py` offers."""

import numpy as np

import jaxalign
from tests.cases import draws
from tests.cases.case import Case, by_rows
from tests.oracles import gae as gae_oracle
from tests.oracles import rewards as rewards_oracle


def tokens(rng):
    given = {"scores": rng.normal(size=draws.ROWS), "tokens": rng.integers(0, 3, draws.SHAPE)}
    given["tokens"][0] = [1, 1, 0, 1, 0]
    return given | {"mask": draws.mask(rng)}


def charged(rng, scale=1.0):
    """KL charges of both signs."""
    given = {"scores": rng.normal(size=draws.ROWS), "kl": scale * rng.normal(size=draws.SHAPE)}
    return given | {"mask": draws.mask(rng)}


CASES = (
    Case(
        function=jaxalign.shaped_rewards,
        fixed_rank=True,
        draw=charged,
        extremes=lambda rng: charged(rng, 1e4),
        oracle=gae_oracle.shaped_rewards,
        settings=({"kl_coef": 0.3},),
        trained=("scores", "kl"),
        masked=("kl",),
    ),
    Case(
        function=jaxalign.missing_eos_penalty,
        draw=tokens,
        oracle=rewards_oracle.missing_eos_penalty,
        settings=({"eos_id": 2, "penalty": 0.7},),
        trained=("scores",),
    ),
    Case(
        function=jaxalign.overlong_penalties,
        fixed_rank=True,
        draw=lambda rng: {"lengths": rng.permutation(np.array([3, 9, 10, 14]))},
        oracle=by_rows(rewards_oracle.overlong_penalty),
        settings=({"longest": 12, "cache": 4}, {"longest": 10, "cache": 8}),
        invalid=(({"longest": 3, "cache": 4}, "cache must be in 1 ... 3"),),
        order=0,
    ),
)
