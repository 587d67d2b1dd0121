"""Losses on single responses that are good or bad, and the statistics they need."""

import numpy as np
from tests.specimens.specimen import ROWS, Specimen, by_entries, by_rows

import jaxalign
from tests.oracles import apo, bco, kto
from tests.specimens import draws

LABELS = np.array([True, False, True, False])


def labelled(rng):
    return {
        "policy_logps": draws.sums(rng),
        "reference_logps": draws.sums(rng),
        "labels": LABELS,
    }


def extreme_labelled(rng):
    return {
        "policy_logps": np.array([-1e4, -1e4, -1.0, 0.0]),
        "reference_logps": np.array([0.0, -1.0, -1e4, -1e4]),
        "labels": LABELS,
    }


UNPAIRED = {
    "draw": labelled,
    "extremes": extreme_labelled,
    "trained": ("policy_logps",),
    "frozen": ("reference_logps",),
}


def level(name, draw):
    """Draws and roles of a loss with a level that all rows share."""
    return {
        "draw": lambda rng: labelled(rng) | {name: np.asarray(draw(rng))},
        "extremes": lambda rng: extreme_labelled(rng) | {name: np.asarray(1e4 * draw(rng))},
        "shared": (name,),
        "trained": ("policy_logps",),
        "frozen": ("reference_logps", name),
    }


def mismatched(rng):
    """The policy likes the responses to other prompts more than the reference does."""
    return {
        "policy_logps": draws.sums(rng, 1.0),
        "reference_logps": draws.sums(rng) - 3.0,
        "weights": np.array([1.0, 0.0, 1.0, 1.0]),
    }


def extreme_mismatched(rng):
    """The policy likes them less: the KL would be negative."""
    return extreme_labelled(rng) | {
        "reference_logps": np.zeros(ROWS),
        "weights": np.ones(ROWS),
    }


def seen(rng):
    state = jaxalign.RunningMean(mean=np.asarray(rng.normal()), count=np.asarray(6.0))
    rewards = rng.normal(1.0, 2.0, (ROWS, draws.TOKENS))
    return {"state": state, "rewards": rewards, "mask": draws.mask(rng)}


def nothing_seen(rng):
    """Neither before nor now."""
    zero = np.zeros(())
    return seen(rng) | {
        "state": jaxalign.RunningMean(mean=zero, count=zero),
        "mask": np.zeros((ROWS, draws.TOKENS), bool),
    }


def after(state, rewards, mask):
    return bco.running_mean(float(state.mean), float(state.count), rewards, mask)


SPECIMENS = (
    Specimen(
        function=jaxalign.kto_kl,
        draw=mismatched,
        extremes=lambda rng: {
            name: x for name, x in extreme_mismatched(rng).items() if name != "labels"
        },
        oracle=kto.kto_kl,
        frozen=("policy_logps", "reference_logps", "weights"),
        mask="weights",
        masked=("policy_logps", "reference_logps"),
        spread="pooled",
        order=0,
    ),
    Specimen(
        function=jaxalign.kto_loss,
        oracle=by_rows(kto.kto_loss),
        settings=(
            {"beta": 0.3},
            {"beta": 1.5, "desirable_weight": 1.3},
            {"beta": 1.5, "undesirable_weight": 0.6},
        ),
        **level("kl", lambda rng: rng.exponential()),
    ),
    Specimen(
        function=jaxalign.apo_zero_unpaired_loss,
        oracle=by_rows(apo.apo_zero_unpaired_loss),
        settings=({"beta": 0.3}, {"beta": 1.5}),
        **UNPAIRED,
    ),
    Specimen(
        function=jaxalign.running_shift,
        draw=seen,
        extremes=nothing_seen,
        oracle=after,
        shared=("state",),
        frozen=("rewards",),
        masked=("rewards",),
        spread="pooled",
        order=0,
    ),
    Specimen(
        function=jaxalign.bco_loss,
        oracle=by_rows(bco.bco_loss),
        settings=({"beta": 0.3}, {"beta": 1.5}),
        **level("shift", lambda rng: rng.normal()),
    ),
    Specimen(
        function=jaxalign.density_ratios,
        draw=lambda rng: {"probabilities": np.array([0.1, 0.55, 0.6, 0.9]) + rng.random() / 20},
        extremes=lambda rng: {"probabilities": np.array([0.0, 0.5, 1.0, 1 - 1e-12])},
        oracle=by_entries(bco.density_ratio),
        settings=({"lowest": 0.5, "highest": 2.0}, {"lowest": 1.3, "highest": 10.0}),
        frozen=("probabilities",),
        order=0,
    ),
)
