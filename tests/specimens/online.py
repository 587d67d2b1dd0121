"""Fresh samples of the policy: ranked by a judge, with a bonus, against an opponent."""

import numpy as np
from tests.specimens.specimen import Specimen, by_lists, by_rows

import jaxalign
from tests.oracles import nash_md, online_dpo, xpo
from tests.specimens import draws
from tests.specimens.distillation import logits
from tests.specimens.preferences import SETTINGS


def judged(rng):
    """The first better, a tie, the second better, the first better."""
    return {
        "first": draws.sums(rng),
        "second": draws.sums(rng),
        "first_scores": np.array([1.0, 2.0, -3.0, 0.5]),
        "second_scores": np.array([0.0, 2.0, -1.0, -0.5]),
    }


def explored(rng):
    return draws.two_pairs(rng) | {"reference_sample_logps": draws.sums(rng)}


def extreme_explored(rng):
    return draws.extreme_pairs(rng) | {"reference_sample_logps": draws.sums(rng, 1e4)}


def compared(rng):
    return {
        "policy_logps": draws.sums(rng),
        "reference_logps": draws.sums(rng),
        "preferences": rng.random(draws.ROWS),
    }


SPECIMENS = (
    Specimen(
        function=jaxalign.ranked,
        draw=judged,
        oracle=by_rows(online_dpo.ranked),
        trained=("first", "second"),
        frozen=("first_scores", "second_scores"),
    ),
    Specimen(
        function=jaxalign.xpo_loss,
        draw=explored,
        extremes=extreme_explored,
        oracle=by_rows(xpo.xpo_loss),
        settings=tuple(s | {"alpha": 0.4} for s in SETTINGS),
        trained=("policy", "reference_sample_logps"),
        frozen=("reference",),
    ),
    Specimen(
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
    Specimen(
        function=jaxalign.nash_md_loss,
        draw=compared,
        oracle=by_rows(nash_md.nash_md_loss),
        settings=({"beta": 0.3}, {"beta": 1.5}),
        trained=("policy_logps",),
        frozen=("reference_logps", "preferences"),
        order=0,
    ),
)
