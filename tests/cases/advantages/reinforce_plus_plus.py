"""Examples of what `jaxalign/advantages/reinforce_plus_plus.py` offers."""

import numpy as np

import jaxalign
from tests.cases import draws
from tests.cases.case import Case
from tests.oracles import returns, statistics


def whitened_returns(rewards, mask, *, gamma):
    nowhere, zeros = np.zeros(np.shape(mask), bool), np.zeros(np.shape(mask))
    to_come = returns.discounted_returns(
        rewards, mask, (nowhere, nowhere, zeros, zeros[:, 0]), gamma
    )
    return statistics.whiten(to_come, mask, True)


CASES = (
    Case(
        function=jaxalign.reinforce_plus_plus_advantages,
        fixed_rank=True,
        draw=lambda rng: {"rewards": rng.normal(size=draws.SHAPE), "mask": draws.mask(rng)},
        extremes=lambda rng: {
            "rewards": 1e4 * rng.normal(size=draws.SHAPE),
            "mask": draws.mask(rng),
        },
        oracle=whitened_returns,
        settings=({"gamma": 0.9}, {"gamma": 1.0}),
        trained=("rewards",),
        masked=("rewards",),
        spread="pooled",
    ),
)
