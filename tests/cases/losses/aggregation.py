"""Examples of what `jaxalign/losses/aggregation.py` offers."""

import numpy as np

import jaxalign
from tests.cases import draws
from tests.cases.case import Case
from tests.oracles import aggregation


def masks(rng):
    return {"mask": draws.mask(rng)}


def counted(rng):
    return {"mask": draws.mask(rng), "rows": np.array([1, 1, 0, 1])}


CASES = (
    Case(
        function=jaxalign.token_mean,
        fixed_rank=True,
        draw=masks,
        oracle=aggregation.token_mean,
        spread="sums",
        order=0,
    ),
    Case(
        function=jaxalign.sequence_mean,
        fixed_rank=True,
        draw=masks,
        oracle=aggregation.sequence_mean,
        spread="sums",
        order=0,
    ),
    Case(
        function=jaxalign.sequence_sum,
        fixed_rank=True,
        draw=counted,
        oracle=aggregation.sequence_sum,
        spread="sums",
        order=0,
    ),
    Case(
        function=jaxalign.constant_length,
        fixed_rank=True,
        draw=counted,
        oracle=aggregation.constant_length,
        settings=({"length": 7}, {"length": 1}),
        spread="sums",
        invalid=(({"length": 0}, "length must be at least 1"),),
        order=0,
    ),
    Case(
        function=jaxalign.without_truncated,
        fixed_rank=True,
        draw=lambda rng: {"mask": draws.mask(rng), "ended": np.array([True, True, False, False])},
        oracle=aggregation.without_truncated,
        order=0,
    ),
)
