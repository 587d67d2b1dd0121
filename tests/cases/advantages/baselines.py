"""Examples of what `jaxalign/advantages/baselines.py` offers."""

import numpy as np

import jaxalign
from tests.cases import draws
from tests.cases.case import Case
from tests.cases.episodes import big_scores, distinct
from tests.oracles import statistics


def batch_mean_so_far(baseline, scores, mask, *, decay):
    kept = statistics.masked_values(scores, mask)
    mean = statistics.masked_mean(scores, mask)
    return decay * baseline + (1 - decay) * mean if kept else baseline


CASES = (
    Case(
        function=jaxalign.greedy_baseline_advantages,
        fixed_rank=True,
        draw=lambda rng: {
            "scores": rng.normal(size=draws.SHAPE),
            "greedy_scores": rng.normal(size=draws.ROWS),
            "mask": draws.mask(rng),
        },
        oracle=lambda scores, greedy, mask: np.where(
            mask, np.asarray(scores) - np.asarray(greedy)[:, None], 0
        ),
        trained=("scores", "greedy_scores"),
        masked=("scores",),
    ),
    Case(
        function=jaxalign.running_baseline,
        draw=lambda rng: {"baseline": np.array(1.5)} | distinct(rng),
        extremes=lambda rng: {"baseline": np.array(-1e4)} | big_scores(rng),
        oracle=batch_mean_so_far,
        settings=({"decay": 0.75}, {"decay": 0.0}),
        trained=("baseline", "scores"),
        masked=("scores",),
        shared=("baseline",),
        spread="pooled",
        invalid=tuple(({"decay": decay}, "decay must be in [0, 1)") for decay in (-0.1, 1.0)),
    ),
)
