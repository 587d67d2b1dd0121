"""Examples of what `jaxalign/losses/nash_md.py` offers."""

import jaxalign
from tests.cases import draws
from tests.cases.case import Case, by_lists, by_rows
from tests.cases.vocabularies import logits
from tests.oracles import nash_md


def compared(rng):
    return {
        "policy_logps": draws.sums(rng),
        "reference_logps": draws.sums(rng),
        "preferences": rng.random(draws.ROWS),
    }


CASES = (
    Case(
        function=jaxalign.mixture_logits,
        draw=lambda rng: {"policy_logits": logits(rng), "reference_logits": logits(rng)},
        extremes=lambda rng: {
            "policy_logits": logits(rng, 1e4),
            "reference_logits": logits(rng, 1e4),
        },
        oracle=by_lists(nash_md.mixture_logits),
        settings=tuple({"mixture": mixture} for mixture in (0.5, 0.0, 1.0, 0.2)),
        trained=("policy_logits", "reference_logits"),
        invalid=tuple(({"mixture": m}, "mixture must be in [0, 1]") for m in (-0.1, 1.1)),
    ),
    Case(
        function=jaxalign.nash_md_loss,
        draw=compared,
        oracle=by_rows(nash_md.nash_md_loss),
        settings=({"beta": 0.3}, {"beta": 1.5}),
        trained=("policy_logps",),
        frozen=("reference_logps", "preferences"),
        order=0,
    ),
)
