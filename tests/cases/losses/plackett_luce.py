"""Examples of what `jaxalign/losses/plackett_luce.py` offers."""

import jaxalign
from tests.cases import draws
from tests.cases.case import ROWS, Case, by_lists
from tests.oracles import plackett_luce


def ranking(rng):
    return {"scores": rng.normal(0.0, 2.0, (ROWS, draws.TOKENS)), "mask": draws.mask(rng)}


def extreme_ranking(rng):
    return {"scores": 1e4 * ranking(rng)["scores"], "mask": draws.mask(rng)}


def ranked_row(scores, mask):
    return plackett_luce.plackett_luce_loss(
        [s for s, real in zip(scores, mask, strict=True) if real]
    )


CASES = (
    Case(
        function=jaxalign.plackett_luce_loss,
        fixed_rank=True,
        draw=ranking,
        extremes=extreme_ranking,
        oracle=by_lists(ranked_row),
        trained=("scores",),
        masked=("scores",),
    ),
)
