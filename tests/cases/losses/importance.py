"""Examples of what `jaxalign/losses/importance.py` offers."""

import jaxalign
from tests.cases import draws
from tests.cases.case import Case, by_entries
from tests.cases.decisions import extreme_logps, extreme_responses, logps, responses
from tests.oracles import policy_gradients as oracle
from tests.oracles.precision import saturating_exp

BAD_CAP = (({"cap": 0.0}, "cap must be above 0"),)

BAD_SHARE = tuple(({"share": share}, "share must be in (0, 1]") for share in (0.0, 1.01))


def engines(rng):
    return dict(zip(("trainer_logps", "sampler_logps"), logps(rng).values(), strict=True))


def extreme_engines(rng):
    return dict(zip(("trainer_logps", "sampler_logps"), extreme_logps().values(), strict=True))


def entropies(rng):
    return {"entropies": rng.exponential(size=draws.SHAPE), "mask": draws.mask(rng)}


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

CASES = (
    Case(
        function=jaxalign.truncated_importance_weights,
        oracle=by_entries(truncated),
        **WEIGHTS,
    ),
    Case(
        function=jaxalign.masked_importance_weights,
        oracle=by_entries(masked),
        **WEIGHTS,
    ),
    Case(
        function=jaxalign.on_policy_rows,
        fixed_rank=True,
        draw=responses,
        extremes=extreme_responses,
        oracle=oracle.on_policy_rows,
        settings=({"threshold": 0.1}, {"threshold": 0.0}),
        masked=("logps", "behaviour_logps"),
        order=0,
    ),
    Case(
        function=jaxalign.top_entropy_mask,
        draw=entropies,
        oracle=oracle.top_entropy_mask,
        settings=({"share": 0.3}, {"share": 1.0}, {"share": 0.5}),
        masked=("entropies",),
        spread="pooled",
        invalid=BAD_SHARE,
        order=0,
    ),
)
