"""Examples of what `jaxalign/losses/bco.py` offers."""

import numpy as np

import jaxalign
from tests.cases import draws
from tests.cases.case import ROWS, Case, by_entries, by_rows
from tests.cases.labels import level
from tests.cases.pairs import SETTINGS
from tests.oracles import bco


def with_shift(rng):
    return draws.two_pairs(rng) | {"shift": np.asarray(rng.normal())}


def extremes_with_shift(rng):
    return draws.extreme_pairs(rng) | {"shift": np.asarray(-1e4)}


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


CASES = (
    Case(
        function=jaxalign.bco_pair_loss,
        oracle=lambda policy, reference, *, beta, shift: by_rows(bco.bco_pair_loss)(
            policy, reference, beta=beta, shift=float(shift)
        ),
        draw=with_shift,
        extremes=extremes_with_shift,
        settings=SETTINGS,
        shared=("shift",),
        trained=("policy",),
        frozen=("reference", "shift"),
    ),
    Case(
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
    Case(
        function=jaxalign.bco_loss,
        oracle=by_rows(bco.bco_loss),
        settings=({"beta": 0.3}, {"beta": 1.5}),
        **level("shift", lambda rng: rng.normal()),
    ),
    Case(
        function=jaxalign.density_ratios,
        draw=lambda rng: {"probabilities": np.array([0.1, 0.55, 0.6, 0.9]) + rng.random() / 20},
        extremes=lambda rng: {"probabilities": np.array([0.0, 0.5, 1.0, 1 - 1e-12])},
        oracle=by_entries(bco.density_ratio),
        settings=({"lowest": 0.5, "highest": 2.0}, {"lowest": 1.3, "highest": 10.0}),
        frozen=("probabilities",),
        order=0,
    ),
)
