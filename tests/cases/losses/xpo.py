"""Examples of what `jaxalign/losses/xpo.py` offers."""

import jaxalign
from tests.cases import draws
from tests.cases.case import Case, by_rows
from tests.cases.pairs import SETTINGS
from tests.oracles import xpo


def explored(rng):
    return draws.two_pairs(rng) | {"reference_sample_logps": draws.sums(rng)}


def extreme_explored(rng):
    return draws.extreme_pairs(rng) | {"reference_sample_logps": draws.sums(rng, 1e4)}


CASES = (
    Case(
        function=jaxalign.xpo_loss,
        draw=explored,
        extremes=extreme_explored,
        oracle=by_rows(xpo.xpo_loss),
        settings=tuple(s | {"alpha": 0.4} for s in SETTINGS),
        trained=("policy", "reference_sample_logps"),
        frozen=("reference",),
    ),
)
