"""Examples of what `jaxalign/numerics/masking.py` offers."""

import math

import numpy as np

import jaxalign
from tests.cases import draws
from tests.cases.case import Case
from tests.oracles import statistics as oracle


def entries(rng):
    return {"x": rng.normal(3.0, 2.0, draws.SHAPE), "mask": draws.mask(rng)}


def extreme_entries(rng):
    return {"x": 1e4 * entries(rng)["x"], "mask": draws.mask(rng)}


def weighted(rng):
    """A mask of weights that are not all 1."""
    given = entries(rng)
    return given | {"mask": given["mask"] * rng.integers(1, 4, given["mask"].shape) / 2}


def weighted_mean(x, mask):
    weight = math.fsum(np.ravel(mask))
    return math.fsum(np.ravel(x * mask)) / weight if weight else 0.0


STATISTIC = {
    "draw": entries,
    "extremes": extreme_entries,
    "trained": ("x",),
    "masked": ("x",),
    "spread": "pooled",
}

CASES = (
    Case(
        function=jaxalign.masked_sum,
        draw=weighted,
        oracle=lambda x, mask: math.fsum(np.ravel(x * mask)),
        trained=("x",),
        masked=("x",),
        spread="pooled",
    ),
    Case(
        function=jaxalign.masked_mean,
        draw=weighted,
        oracle=weighted_mean,
        trained=("x",),
        masked=("x",),
        spread="pooled",
    ),
    Case(
        function=jaxalign.masked_variance,
        oracle=lambda x, mask, *, ddof: oracle.masked_variance(x, mask, ddof),
        settings=({"ddof": 1}, {"ddof": 0}),
        **STATISTIC,
    ),
    Case(
        function=jaxalign.whiten,
        oracle=lambda x, mask, *, shift_mean=True: oracle.whiten(x, mask, shift_mean),
        settings=({}, {"shift_mean": False}),
        **STATISTIC,
    ),
)
