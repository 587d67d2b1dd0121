"""Examples of what `jaxalign/losses/aot.py` offers."""

import jax
import numpy as np

import jaxalign
from tests.cases import draws
from tests.cases.case import ROWS, Case
from tests.cases.pairs import SMOOTHED, refused
from tests.oracles import aot


def with_weights(rng):
    """One row of padding."""
    return draws.two_pairs(rng) | {"weights": np.array([1.0, 0.0, 0.5, 2.0])}


def extremes_with_weights(rng):
    """All reference margins are equal."""
    return draws.extreme_pairs(rng) | {"weights": np.ones(ROWS)}


SORTED = {
    "draw": with_weights,
    "extremes": extremes_with_weights,
    "settings": SMOOTHED,
    "trained": ("policy",),
    "frozen": ("reference", "weights"),
    "mask": "weights",
    "spread": "pooled",
    "invalid": refused(beta=0.1),
}


def of_lists(sorted_oracle):
    """An oracle of `(chosen, rejected)` lists as one of arrays."""

    def losses(*arguments, **settings):
        lists = [np.asarray(x).tolist() for x in jax.tree.leaves(arguments)]
        return np.array(
            sorted_oracle((lists[0], lists[1]), (lists[2], lists[3]), lists[4], **settings)
        )

    return losses


CASES = (
    Case(function=jaxalign.aot_loss, fixed_rank=True, oracle=of_lists(aot.aot_loss), **SORTED),
    Case(
        function=jaxalign.aot_unpaired_loss,
        fixed_rank=True,
        oracle=of_lists(aot.aot_unpaired_loss),
        **SORTED,
    ),
)
