"""Tokens and pairs that count more or less than others."""

import numpy as np
from tests.specimens.specimen import Specimen, by_lists

import jaxalign
from tests.oracles import ld_dpo, wpo
from tests.specimens import draws


def responses(rng, scale=1.0):
    return {"token_logps": draws.tokens(rng, scale), "mask": draws.mask(rng)}


def with_public_lengths(rng, scale=1.0):
    """As long as both, nothing, longer than the response, and in between."""
    return responses(rng, scale) | {"public_lengths": np.array([5, 0, 2, 1])}


SPECIMENS = (
    Specimen(
        function=jaxalign.length_desensitised_logps,
        draw=with_public_lengths,
        extremes=lambda rng: with_public_lengths(rng, 1e4),
        oracle=by_lists(ld_dpo.length_desensitised_logps),
        settings=tuple({"alpha": alpha} for alpha in (0.3, 0.0, 1.0, 0.6)),
        trained=("token_logps",),
        masked=("token_logps",),
        invalid=tuple(({"alpha": a}, "alpha must be in [0, 1]") for a in (-0.1, 1.1)),
    ),
    Specimen(
        function=jaxalign.wpo_weights,
        draw=lambda rng: responses(rng) | {"log_collisions": draws.tokens(rng, 0.5)},
        extremes=lambda rng: responses(rng) | {"log_collisions": draws.tokens(rng, 1e4)},
        oracle=by_lists(wpo.wpo_weight),
        settings=({}, {"log_collisions": None}),
        frozen=("token_logps", "log_collisions"),
        masked=("token_logps", "log_collisions"),
        order=0,
    ),
)
