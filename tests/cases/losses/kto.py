"""Examples of what `jaxalign/losses/kto.py` offers."""

import numpy as np

import jaxalign
from tests.cases import draws
from tests.cases.case import ROWS, Case, by_rows
from tests.cases.labels import extreme_labelled, level
from tests.oracles import kto


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


CASES = (
    Case(
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
    Case(
        function=jaxalign.kto_loss,
        oracle=by_rows(kto.kto_loss),
        settings=(
            {"beta": 0.3},
            {"beta": 1.5, "desirable_weight": 1.3},
            {"beta": 1.5, "undesirable_weight": 0.6},
        ),
        **level("kl", lambda rng: rng.exponential()),
    ),
)
