"""Examples of what `jaxalign/diagnostics.py` offers."""

import math

import numpy as np

import jaxalign
from tests.cases import draws
from tests.cases.case import Case
from tests.cases.decisions import logps
from tests.oracles import statistics as oracle


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


def foreseen(values, returns, mask):
    """One minus a quotient of variances, each about its own mean."""
    total = oracle.masked_variance(returns, mask, 0)
    rest = oracle.masked_variance(np.asarray(returns) - np.asarray(values), mask, 0)
    return 1 - rest / total if total else 0.0


CASES = (
    Case(
        function=jaxalign.explained_variance,
        draw=lambda rng: {
            "values": rng.normal(size=draws.SHAPE),
            "returns": rng.normal(size=draws.SHAPE),
            "mask": draws.mask(rng),
        },
        oracle=foreseen,
        trained=("values",),
        masked=("values", "returns"),
        spread="pooled",
    ),
    Case(
        function=jaxalign.effective_sample_size,
        draw=lambda rng: {
            "log_weights": rng.normal(size=draws.SHAPE),
            "mask": draws.mask(rng),
        },
        oracle=share_of_samples,
        trained=("log_weights",),
        masked=("log_weights",),
        spread="pooled",
    ),
    Case(
        function=jaxalign.ratio_diagnostics,
        draw=diagnosed,
        oracle=ratios,
        settings=({"cap": 1.05}, {"cap": 0.3}),
        masked=("logps", "behaviour_logps"),
        spread="pooled",
        order=0,
    ),
)
