"""Masked sums, means, variances, and what they say of importance ratios."""

import math

import numpy as np
from tests.specimens.specimen import Specimen

import jaxalign
from tests.oracles import statistics as oracle
from tests.specimens import draws
from tests.specimens.policy_gradients import logps


def entries(rng):
    return {"x": rng.normal(3.0, 2.0, (draws.ROWS, draws.TOKENS)), "mask": draws.mask(rng)}


def extreme_entries(rng):
    return {"x": 1e4 * entries(rng)["x"], "mask": draws.mask(rng)}


def weighted(rng):
    """A mask of weights that are not all 1."""
    given = entries(rng)
    return given | {"mask": given["mask"] * rng.integers(1, 4, given["mask"].shape) / 2}


def weighted_mean(x, mask):
    weight = math.fsum(np.ravel(mask))
    return math.fsum(np.ravel(x * mask)) / weight if weight else 0.0


def diagnosed(rng):
    return logps(rng) | {"mask": draws.mask(rng)}


def share_of_samples(log_weights, mask):
    weights = [math.exp(w) for w in oracle.masked_values(log_weights, mask)]
    return math.fsum(weights) ** 2 / (len(weights) * math.fsum(w * w for w in weights))


def ratios(logps, behaviour, mask, *, cap):
    """By the definitions in its docstring."""
    d = oracle.masked_values(np.asarray(logps) - np.asarray(behaviour), mask)
    r, n = [math.exp(x) for x in d], len(d)
    return {
        "ratio/mean": math.fsum(r) / n,
        "ratio/max": max(r),
        "ratio/capped_mean": math.fsum(min(x, cap) for x in r) / n,
        "ratio/capped_max": min(max(r), cap),
        "ratio/capped_share": sum(x > cap for x in r) / n,
        "ratio/effective_samples": math.fsum(r) ** 2 / (n * math.fsum(x * x for x in r)),
        "ratio/k1": -math.fsum(d) / n,
        "ratio/k3": math.fsum(math.expm1(x) - x for x in d) / n,
    }


STATISTIC = {
    "draw": entries,
    "extremes": extreme_entries,
    "trained": ("x",),
    "masked": ("x",),
    "spread": "pooled",
}

SPECIMENS = (
    Specimen(
        function=jaxalign.masked_sum,
        draw=weighted,
        oracle=lambda x, mask: math.fsum(np.ravel(x * mask)),
        trained=("x",),
        masked=("x",),
        spread="pooled",
    ),
    Specimen(
        function=jaxalign.masked_mean,
        draw=weighted,
        oracle=weighted_mean,
        trained=("x",),
        masked=("x",),
        spread="pooled",
    ),
    Specimen(
        function=jaxalign.masked_variance,
        oracle=lambda x, mask, *, ddof: oracle.masked_variance(x, mask, ddof),
        settings=({"ddof": 1}, {"ddof": 0}),
        **STATISTIC,
    ),
    Specimen(
        function=jaxalign.whiten,
        oracle=lambda x, mask, *, shift_mean=True: oracle.whiten(x, mask, shift_mean),
        settings=({}, {"shift_mean": False}),
        **STATISTIC,
    ),
    Specimen(
        function=jaxalign.effective_sample_size,
        draw=lambda rng: {
            "log_weights": rng.normal(size=(draws.ROWS, draws.TOKENS)),
            "mask": draws.mask(rng),
        },
        oracle=share_of_samples,
        trained=("log_weights",),
        masked=("log_weights",),
        spread="pooled",
    ),
    Specimen(
        function=jaxalign.ratio_diagnostics,
        draw=diagnosed,
        oracle=ratios,
        settings=({"cap": 1.05}, {"cap": 0.3}),
        masked=("logps", "behaviour_logps"),
        spread="pooled",
        order=0,
    ),
)
