"""Masked sums, means, variances."""

import jaxalign
from tests.oracles import statistics as oracle
from tests.specimens import draws
from tests.specimens.specimen import Specimen


def entries(rng):
    return {"x": rng.normal(3.0, 2.0, (draws.ROWS, draws.TOKENS)), "mask": draws.mask(rng)}


def extreme_entries(rng):
    return {"x": 1e4 * entries(rng)["x"], "mask": draws.mask(rng)}


SPECIMENS = (
    Specimen(
        function=jaxalign.whiten,
        draw=entries,
        extremes=extreme_entries,
        oracle=lambda x, mask, *, shift_mean=True: oracle.whiten(x, mask, shift_mean),
        settings=({}, {"shift_mean": False}),
        trained=("x",),
        masked=("x",),
        spread="pooled",
    ),
)
