"""Weights of samples, and how token losses are added up."""

import numpy as np
from tests.specimens.specimen import Specimen, by_entries

import jaxalign
from tests.oracles import aggregation
from tests.oracles import policy_gradients as oracle
from tests.oracles.precision import saturating_exp
from tests.specimens import draws
from tests.specimens.policy_gradients import extreme_logps, extreme_responses, logps, responses

BAD_CAP = (({"cap": 0.0}, "cap must be above 0"),)
BAD_SHARE = tuple(({"share": share}, "share must be in (0, 1]") for share in (0.0, 1.01))


def engines(rng):
    return dict(zip(("trainer_logps", "sampler_logps"), logps(rng).values(), strict=True))


def extreme_engines(rng):
    return dict(zip(("trainer_logps", "sampler_logps"), extreme_logps().values(), strict=True))


def masks(rng):
    return {"mask": draws.mask(rng)}


def counted(rng):
    return {"mask": draws.mask(rng), "rows": np.array([1, 1, 0, 1])}


def entropies(rng):
    return {"entropies": rng.exponential(size=(draws.ROWS, draws.TOKENS)), "mask": draws.mask(rng)}


def truncated(trainer, sampler, *, cap) -> float:
    return min(saturating_exp(trainer - sampler), cap)


def masked(trainer, sampler, *, cap) -> float:
    ratio = saturating_exp(trainer - sampler)
    return ratio if ratio <= cap else 0.0


WEIGHTS = {
    "draw": engines,
    "extremes": extreme_engines,
    "settings": ({"cap": 1.05}, {"cap": 0.5}, {"cap": 1.0}),
    "frozen": ("trainer_logps", "sampler_logps"),
    "invalid": BAD_CAP,
    "order": 0,
}

SPECIMENS = (
    Specimen(
        function=jaxalign.truncated_importance_weights, oracle=by_entries(truncated), **WEIGHTS
    ),
    Specimen(function=jaxalign.masked_importance_weights, oracle=by_entries(masked), **WEIGHTS),
    Specimen(
        function=jaxalign.on_policy_rows,
        draw=responses,
        extremes=extreme_responses,
        oracle=oracle.on_policy_rows,
        settings=({"threshold": 0.1}, {"threshold": 0.0}),
        masked=("logps", "behaviour_logps"),
        order=0,
    ),
    Specimen(
        function=jaxalign.top_entropy_mask,
        draw=entropies,
        oracle=oracle.top_entropy_mask,
        settings=({"share": 0.3}, {"share": 1.0}, {"share": 0.5}),
        masked=("entropies",),
        spread="pooled",
        invalid=BAD_SHARE,
        order=0,
    ),
    Specimen(
        function=jaxalign.token_mean,
        draw=masks,
        oracle=aggregation.token_mean,
        spread="sums",
        order=0,
    ),
    Specimen(
        function=jaxalign.sequence_mean,
        draw=masks,
        oracle=aggregation.sequence_mean,
        spread="sums",
        order=0,
    ),
    Specimen(
        function=jaxalign.sequence_sum,
        draw=counted,
        oracle=aggregation.sequence_sum,
        spread="sums",
        order=0,
    ),
    Specimen(
        function=jaxalign.constant_length,
        draw=counted,
        oracle=aggregation.constant_length,
        settings=({"length": 7}, {"length": 1}),
        spread="sums",
        invalid=(({"length": 0}, "length must be at least 1"),),
        order=0,
    ),
    Specimen(
        function=jaxalign.without_truncated,
        draw=lambda rng: {"mask": draws.mask(rng), "ended": np.array([True, True, False, False])},
        oracle=aggregation.without_truncated,
        order=0,
    ),
)
