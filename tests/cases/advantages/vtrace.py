"""Examples of what `jaxalign/advantages/vtrace.py` offers."""

import jaxalign
from tests.cases import draws
from tests.cases.case import Case
from tests.cases.episodes import episodes, with_ends
from tests.oracles import returns


def off_policy(rng, scale=1.0):
    return {"log_ratios": scale * rng.normal(size=draws.SHAPE)} | episodes(rng)


def vtrace(*arrays, gamma, trace_lambda=1.0, rho_clip=1.0, c_clip=1.0):
    """The oracle with the defaults of the paper."""
    return returns.vtrace(*arrays, gamma, trace_lambda, rho_clip, c_clip)


CASES = (
    Case(
        function=jaxalign.vtrace,
        fixed_rank=True,
        draw=off_policy,
        oracle=with_ends(vtrace),
        settings=(
            {"gamma": 0.9, "trace_lambda": 0.8, "rho_clip": 1.2, "c_clip": 0.9},
            {"gamma": 0.9},
        ),
        frozen=("log_ratios", "rewards", "values"),
        masked=("log_ratios", "rewards", "values", "final_values"),
        order=0,
    ),
)
