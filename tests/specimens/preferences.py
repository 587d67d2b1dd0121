"""Losses on pairs of responses under policy and reference."""

import functools

import jax
import numpy as np
from tests.specimens.specimen import ROWS, Specimen, by_entries, by_rows

import jaxalign
from tests.oracles import (
    aot,
    apo,
    bco,
    discopop,
    exo,
    f_dpo,
    ipo,
    length_normalisation,
    nca,
    slic,
    sppo,
)
from tests.oracles import preferences as oracle
from tests.specimens import draws

PAIRED = {
    "draw": draws.two_pairs,
    "extremes": draws.extreme_pairs,
    "trained": ("policy",),
    "frozen": ("reference",),
}


def refused(**settings):
    """The shares of flipped labels that every smoothed loss refuses."""
    return tuple(
        (settings | {"label_smoothing": share}, "label_smoothing must be in [0, 0.5)")
        for share in (-0.1, 0.5, 0.6)
    )


SETTINGS = ({"beta": 0.3}, {"beta": 1.5})
SMOOTHED = ({"beta": 0.3}, {"beta": 1.5, "label_smoothing": 0.2})


def with_lengths(rng):
    return draws.two_pairs(rng) | {"lengths": draws.lengths(rng)}


def extremes_with_lengths(rng):
    return draws.extreme_pairs(rng) | {"lengths": draws.lengths(rng)}


LONG = PAIRED | {"draw": with_lengths, "extremes": extremes_with_lengths}


def with_shift(rng):
    return draws.two_pairs(rng) | {"shift": np.asarray(rng.normal())}


def extremes_with_shift(rng):
    return draws.extreme_pairs(rng) | {"shift": np.asarray(-1e4)}


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


def log_t(rng):
    return {"log_ratios": rng.normal(0.0, 2.0, ROWS)}


def extreme_log_t(rng):
    return {"log_ratios": np.array([1e4, -1e4, 0.0, -1.0])}


SCORE = {"draw": log_t, "extremes": extreme_log_t, "trained": ("log_ratios",)}
HALF = functools.partial(jaxalign.alpha_score, alpha=0.5)
ORACLE_OF_SCORE = {
    jaxalign.reverse_kl_score: f_dpo.reverse_kl_score,
    jaxalign.forward_kl_score: f_dpo.forward_kl_score,
    jaxalign.jensen_shannon_score: f_dpo.jensen_shannon_score,
    HALF: functools.partial(f_dpo.alpha_score, alpha=0.5),
}

SPECIMENS = (
    Specimen(
        function=jaxalign.log_ratios,
        oracle=by_rows(oracle.log_ratios),
        **PAIRED,
    ),
    Specimen(
        function=jaxalign.no_reference,
        draw=lambda rng: {"policy": draws.pair(rng)},
        oracle=by_rows(lambda chosen, rejected: (0.0, 0.0)),
        frozen=("policy",),
        order=0,
    ),
    Specimen(
        function=jaxalign.implicit_rewards,
        oracle=by_rows(oracle.implicit_rewards),
        settings=SETTINGS,
        **PAIRED,
    ),
    Specimen(
        function=jaxalign.dpo_loss,
        oracle=by_rows(oracle.dpo_loss),
        settings=SMOOTHED,
        invalid=refused(beta=0.1),
        **PAIRED,
    ),
    Specimen(
        function=jaxalign.robust_dpo_loss,
        oracle=by_rows(oracle.robust_dpo_loss),
        settings=(
            {"beta": 0.3, "label_smoothing": 0.2},
            {"beta": 1.5, "label_smoothing": 0.0},
            {"beta": 1.5, "label_smoothing": 0.4},
        ),
        invalid=refused(beta=0.1),
        **PAIRED,
    ),
    Specimen(function=jaxalign.ipo_loss, oracle=by_rows(ipo.ipo_loss), settings=SETTINGS, **PAIRED),
    Specimen(
        function=jaxalign.averaged_ipo_loss,
        oracle=by_rows(ipo.averaged_ipo_loss),
        settings=SETTINGS,
        **LONG,
    ),
    Specimen(
        function=jaxalign.hinge_loss, oracle=by_rows(slic.hinge_loss), settings=SETTINGS, **PAIRED
    ),
    Specimen(
        function=jaxalign.exo_pair_loss,
        oracle=by_rows(exo.exo_pair_loss),
        settings=(
            {"beta": 0.3, "label_smoothing": 0.2},
            {"beta": 1.5, "label_smoothing": 0.001},
        ),
        invalid=tuple(
            ({"beta": 0.1, "label_smoothing": share}, "label_smoothing must be in (0, 0.5)")
            for share in (-0.1, 0.0, 0.5, 0.6)
        ),
        **PAIRED,
    ),
    Specimen(
        function=jaxalign.nca_pair_loss,
        oracle=by_rows(nca.nca_pair_loss),
        settings=SETTINGS,
        **PAIRED,
    ),
    Specimen(
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
    Specimen(
        function=jaxalign.sppo_hard_loss,
        oracle=by_rows(sppo.sppo_hard_loss),
        settings=SETTINGS,
        **PAIRED,
    ),
    Specimen(function=jaxalign.aot_loss, oracle=of_lists(aot.aot_loss), **SORTED),
    Specimen(function=jaxalign.aot_unpaired_loss, oracle=of_lists(aot.aot_unpaired_loss), **SORTED),
    Specimen(
        function=jaxalign.apo_zero_loss,
        oracle=by_rows(apo.apo_zero_loss),
        settings=SETTINGS,
        **PAIRED,
    ),
    Specimen(
        function=jaxalign.apo_down_loss,
        oracle=by_rows(apo.apo_down_loss),
        settings=SETTINGS,
        **PAIRED,
    ),
    Specimen(
        function=jaxalign.discopop_loss,
        oracle=by_rows(discopop.discopop_loss),
        settings=({"beta": 0.3}, {"beta": 0.05}, {"beta": 0.5, "temperature": 2.0}),
        **PAIRED,
    ),
    Specimen(
        function=jaxalign.per_token,
        draw=lambda rng: {"logps": draws.pair(rng), "lengths": draws.lengths(rng)},
        oracle=by_rows(length_normalisation.per_token),
        trained=("logps",),
    ),
    Specimen(
        function=jaxalign.length_normalised_dpo_loss,
        oracle=by_rows(length_normalisation.length_normalised_dpo_loss),
        settings=SMOOTHED,
        invalid=refused(beta=0.1),
        **LONG,
    ),
    Specimen(
        function=jaxalign.reverse_kl_score, oracle=by_entries(f_dpo.reverse_kl_score), **SCORE
    ),
    Specimen(
        function=jaxalign.forward_kl_score, oracle=by_entries(f_dpo.forward_kl_score), **SCORE
    ),
    Specimen(
        function=jaxalign.jensen_shannon_score,
        oracle=by_entries(f_dpo.jensen_shannon_score),
        **SCORE,
    ),
    Specimen(
        function=jaxalign.alpha_score,
        oracle=by_entries(f_dpo.alpha_score),
        settings=({"alpha": 0.5}, {"alpha": -0.3}, {"alpha": 1.0}, {"alpha": 0.7}),
        invalid=(({"alpha": 0.0}, "alpha must not be 0"),),
        **SCORE,
    ),
    Specimen(
        function=jaxalign.f_dpo_loss,
        oracle=lambda *pairs, score, **settings: by_rows(f_dpo.f_dpo_loss)(
            *pairs, score=ORACLE_OF_SCORE[score], **settings
        ),
        settings=(
            {"beta": 0.3, "score": jaxalign.jensen_shannon_score},
            {"beta": 0.3, "score": HALF},
            {"beta": 0.1, "score": jaxalign.forward_kl_score},
            {"beta": 0.7, "score": jaxalign.reverse_kl_score, "label_smoothing": 0.2},
        ),
        invalid=refused(beta=0.1, score=jaxalign.forward_kl_score),
        **PAIRED,
    ),
)
