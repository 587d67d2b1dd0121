"""Losses on pairs under the policy alone."""

import numpy as np
from tests.specimens.specimen import Specimen, by_entries, by_rows

import jaxalign
from tests.oracles import alphapo, cpo, orpo, simpo, tpo
from tests.specimens import draws
from tests.specimens.preferences import refused


def pair_and_lengths(rng):
    return {"policy": draws.pair(rng), "lengths": draws.lengths(rng)}


def extreme_pair_and_lengths(rng):
    return {"policy": draws.extreme_pairs(rng)["policy"], "lengths": draws.lengths(rng)}


LONG = {"draw": pair_and_lengths, "extremes": extreme_pair_and_lengths, "trained": ("policy",)}


def gold(rng, scale=3.0):
    """A third response; one of the four is empty, one a single token."""
    return {"gold_logps": draws.sums(rng, scale), "gold_lengths": np.array([3.0, 0.0, 1.0, 7.0])}


def triple(rng):
    return {"policy": draws.pair(rng)} | gold(rng)


def extreme_triple(rng):
    return {"policy": draws.extreme_pairs(rng)["policy"]} | gold(rng, 1e4)


SPECIMENS = (
    Specimen(
        function=jaxalign.simpo_loss,
        oracle=by_rows(simpo.simpo_loss),
        settings=(
            {"beta": 2.0, "gamma": 0.7},
            {"beta": 0.4, "gamma": -0.3, "label_smoothing": 0.2},
        ),
        invalid=refused(beta=2.0, gamma=1.0),
        **LONG,
    ),
    Specimen(
        function=jaxalign.alphapo_loss,
        oracle=by_rows(alphapo.alphapo_loss),
        settings=(
            {"beta": 2.0, "gamma": 0.7, "alpha": 0.25},
            {"beta": 0.4, "gamma": -0.3, "alpha": -0.5, "label_smoothing": 0.2},
        ),
        invalid=(
            *refused(beta=2.0, gamma=1.0, alpha=0.25),
            ({"beta": 2.0, "gamma": 1.0, "alpha": 0.0}, "alpha must not be 0"),
        ),
        **LONG,
    ),
    Specimen(
        function=jaxalign.cpo_loss,
        oracle=by_rows(cpo.cpo_loss),
        settings=({"beta": 0.3}, {"beta": 1.5, "nll_coef": 0.4, "label_smoothing": 0.2}),
        invalid=refused(beta=0.3),
        **LONG,
    ),
    Specimen(
        function=jaxalign.log_odds,
        draw=lambda rng: {"average_logps": draws.sums(rng) - 0.5},
        extremes=lambda rng: {"average_logps": np.array([-1e4, 0.0, -1e-31, -1e-20])},
        oracle=by_entries(orpo.log_odds),
        trained=("average_logps",),
    ),
    Specimen(
        function=jaxalign.orpo_loss,
        oracle=by_rows(orpo.orpo_loss),
        settings=({"beta": 0.3}, {"beta": 1.5, "nll_coef": 0.4}),
        **LONG,
    ),
    Specimen(
        function=jaxalign.tpo_loss,
        draw=triple,
        extremes=extreme_triple,
        oracle=by_rows(tpo.tpo_loss),
        settings=({"beta": 0.3}, {"beta": 1.5, "nll_coef": 0.4, "label_smoothing": 0.2}),
        trained=("policy", "gold_logps"),
        invalid=refused(beta=0.3),
    ),
    Specimen(
        function=jaxalign.tpo_l_loss,
        draw=lambda rng: pair_and_lengths(rng) | gold(rng),
        extremes=lambda rng: extreme_pair_and_lengths(rng) | gold(rng, 1e4),
        oracle=by_rows(tpo.tpo_l_loss),
        settings=(
            {"beta": 2.0, "gamma": 0.7},
            {"beta": 0.4, "gamma": -0.3, "nll_coef": 0.4, "label_smoothing": 0.2},
        ),
        trained=("policy", "gold_logps"),
        invalid=refused(beta=2.0, gamma=1.0),
    ),
)
