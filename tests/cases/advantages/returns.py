"""Examples of what `jaxalign/advantages/returns.py` offers."""

import jaxalign
from tests.cases.case import Case
from tests.cases.episodes import EPISODES, episodes, with_ends
from tests.oracles import returns


def without_values(rng):
    return {name: x for name, x in episodes(rng).items() if name != "values"}


CASES = (
    Case(
        function=jaxalign.discounted_returns,
        fixed_rank=True,
        oracle=with_ends(returns.discounted_returns),
        **EPISODES
        | {
            "draw": without_values,
            "extremes": None,
            "trained": ("rewards",),
            "masked": ("rewards", "final_values"),
            "settings": ({"gamma": 0.9}, {"gamma": 1.0}),
        },
    ),
    Case(
        function=jaxalign.lambda_returns,
        fixed_rank=True,
        oracle=with_ends(returns.lambda_returns),
        **EPISODES
        | {
            "settings": (
                {"gamma": 0.9, "trace_lambda": 0.7},
                {"gamma": 0.8, "trace_lambda": 0.0},
            )
        },
    ),
    Case(
        function=jaxalign.n_step_returns,
        fixed_rank=True,
        oracle=with_ends(lambda *x, gamma, steps: returns.n_step_returns(*x, gamma, steps)),
        **EPISODES | {"settings": tuple({"gamma": 0.9, "steps": n} for n in (2, 1, 9))},
        invalid=(({"gamma": 0.9, "steps": 0}, "steps must be at least 1"),),
    ),
)
