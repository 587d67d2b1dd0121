"""Examples of what `jaxalign/losses/ld_dpo.py` offers."""

import numpy as np

import jaxalign
from tests.cases import draws
from tests.cases.case import Case, by_lists
from tests.oracles import ld_dpo


def with_public_lengths(rng, scale=1.0):
    """As long as both, nothing, longer than the response, and in between."""
    return draws.responses(rng, scale) | {"public_lengths": np.array([5, 0, 2, 1])}


CASES = (
    Case(
        function=jaxalign.length_desensitised_logps,
        fixed_rank=True,
        draw=with_public_lengths,
        extremes=lambda rng: with_public_lengths(rng, 1e4),
        oracle=by_lists(ld_dpo.length_desensitised_logps),
        settings=tuple({"alpha": alpha} for alpha in (0.3, 0.0, 1.0, 0.6)),
        trained=("token_logps",),
        masked=("token_logps",),
        invalid=tuple(({"alpha": a}, "alpha must be in [0, 1]") for a in (-0.1, 1.1)),
    ),
)
