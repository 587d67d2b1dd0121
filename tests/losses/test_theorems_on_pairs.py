"""What is true of all losses on pairs: at the reference, at the optimum, under descent."""

import functools
import math

import numpy as np
import pytest

import jaxalign as ja
from tests.pairs import (
    BETA,
    HALF,
    LENGTHS,
    LOG2,
    MANY,
    POLICY,
    REFERENCE,
    E,
    pair,
    value_and_slopes,
)

ONES = np.ones(1)


# (loss given beta 0.3, its value where policy and reference agree, slopes there over beta)
AT_REFERENCE = {
    "dpo": (ja.dpo_loss, (), {}, LOG2, -1 / 2, 1 / 2),
    "cdpo": (ja.dpo_loss, (), {"label_smoothing": E}, LOG2, -0.6 / 2, 0.6 / 2),
    # the slope is that of the clean loss over 1 - 2 e
    "robust": (ja.robust_dpo_loss, (), {"label_smoothing": E}, LOG2, -0.5 / 0.6, 0.5 / 0.6),
    "ipo": (ja.ipo_loss, (), {}, 1 / (4 * BETA**2), -1 / BETA**2, 1 / BETA**2),
    "averaged_ipo": (
        *(ja.averaged_ipo_loss, (LENGTHS,), {}),
        *(1 / (4 * BETA**2), -1 / (2 * BETA**2), 1 / (4 * BETA**2)),
    ),
    "hinge": (ja.hinge_loss, (), {}, 1.0, -1.0, 1.0),
    # p (1 - p) = 1/4 times log(p / (1 - e)) - log((1 - p) / e) at p = 1/2: log(e / (1 - e))
    "exo": (
        *(ja.exo_pair_loss, (), {"label_smoothing": E}),
        *(-LOG2 - math.log(0.16) / 2, -math.log(4) / 4, math.log(4) / 4),
    ),
    "nca": (ja.nca_pair_loss, (), {}, 2 * LOG2, -1 / 4, 1 / 4),
    "bco_pair": (ja.bco_pair_loss, (), {"shift": 0.0}, 2 * LOG2, -1 / 2, 1 / 2),
    "sppo": (ja.sppo_hard_loss, (), {}, 1 / (2 * BETA**2), -1 / BETA**2, 1 / BETA**2),
    "aot": (ja.aot_loss, (ONES,), {}, LOG2, -1 / 2, 1 / 2),
    "aot_unpaired": (ja.aot_unpaired_loss, (ONES,), {}, LOG2, -1 / 2, 1 / 2),
    "apo_zero": (ja.apo_zero_loss, (), {}, 1.0, -1 / 4, 1 / 4),
    "apo_down": (ja.apo_down_loss, (), {}, 1.0, 0.0, 1 / 4),
    # w = 1/2 and w' = 1 / (4 t): (1 - log 2) w' - (1 - w) / 2 - w, which is above 0 at t = 0.05
    "discopop": (
        *(ja.discopop_loss, (), {}, (LOG2 + 1) / 2),
        *(5 * (1 - LOG2) - 0.75, -5 * (1 - LOG2) + 0.75),
    ),
    "length_normalised": (ja.length_normalised_dpo_loss, (LENGTHS,), {}, LOG2, -1 / 4, 1 / 8),
    # the slope of f' in log t at t = 1 is f''(1): 1, but 1/2 for Jensen-Shannon
    "reverse_kl": (ja.f_dpo_loss, (), {"score": ja.reverse_kl_score}, LOG2, -1 / 2, 1 / 2),
    "forward_kl": (ja.f_dpo_loss, (), {"score": ja.forward_kl_score}, LOG2, -1 / 2, 1 / 2),
    "jensen_shannon": (
        *(ja.f_dpo_loss, (), {"score": ja.jensen_shannon_score}, LOG2, -1 / 4, 1 / 4),
    ),
    "alpha": (ja.f_dpo_loss, (), {"score": HALF}, LOG2, -1 / 2, 1 / 2),
}


@pytest.mark.parametrize("name", AT_REFERENCE)
def test_where_policy_and_reference_agree(x64, name):
    loss, more, settings, value, chosen, rejected = AT_REFERENCE[name]
    same = pair(-1.3, -7.0)
    found = value_and_slopes(lambda policy: loss(policy, same, *more, beta=BETA, **settings), same)
    np.testing.assert_allclose(np.ravel(found[0]), value, rtol=1e-12)
    np.testing.assert_allclose(found[1] / BETA, chosen, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(found[2] / BETA, rejected, rtol=1e-12, atol=1e-14)


ALWAYS_APART = {
    "dpo": functools.partial(ja.dpo_loss, reference=REFERENCE, beta=BETA),
    "robust": functools.partial(
        ja.robust_dpo_loss, reference=REFERENCE, beta=BETA, label_smoothing=E
    ),
    "hinge": functools.partial(ja.hinge_loss, reference=REFERENCE, beta=BETA),
    "apo_zero": functools.partial(ja.apo_zero_loss, reference=REFERENCE, beta=BETA),
    "bco_pair": functools.partial(ja.bco_pair_loss, reference=REFERENCE, beta=BETA, shift=0.4),
    "aot": functools.partial(ja.aot_loss, reference=REFERENCE, weights=np.ones(40), beta=BETA),
    "f_dpo": functools.partial(ja.f_dpo_loss, reference=REFERENCE, beta=BETA, score=HALF),
    "simpo": functools.partial(ja.simpo_loss, lengths=MANY, beta=2.0, gamma=0.5),
    "alphapo": functools.partial(ja.alphapo_loss, lengths=MANY, beta=2.0, gamma=0.5, alpha=0.25),
    "cpo": functools.partial(ja.cpo_loss, lengths=MANY, beta=BETA),
    "orpo": functools.partial(ja.orpo_loss, lengths=MANY, beta=BETA),
}


@pytest.mark.parametrize("name", ALWAYS_APART)
def test_descent_raises_the_chosen_and_lowers_the_rejected(name):
    _, chosen, rejected = value_and_slopes(ALWAYS_APART[name], POLICY)
    assert (chosen <= 0).all() and (rejected >= 0).all()
    assert (chosen < 0).any() and (rejected > 0).any()


@pytest.mark.parametrize(
    ("loss", "optimum", "least"),
    [
        # IPO: the margin is 1 / (2 beta), here 5/3
        (ja.ipo_loss, (5 / 3 - 2, -2), 0.0),
        # averages 1 and -2/3 differ by 5/3
        (functools.partial(ja.averaged_ipo_loss, lengths=LENGTHS), (2.0, -8 / 3), 0.0),
        # EXO: the policy prefers as the label does, sigmoid(u) = 0.8
        (
            functools.partial(ja.exo_pair_loss, label_smoothing=E),
            (math.log(4) / BETA + 1, 1),
            0.0,
        ),
        # cDPO: the same, and the entropy of the label is left
        (
            functools.partial(ja.dpo_loss, label_smoothing=E),
            (math.log(4) / BETA + 1, 1),
            -0.8 * math.log(0.8) - 0.2 * math.log(0.2),
        ),
        # SPPO: log-ratios of 1 / (2 beta) and its negative
        (ja.sppo_hard_loss, (5 / 3, -5 / 3), 0.0),
    ],
)
def test_the_stationary_point_is_the_papers(x64, loss, optimum, least):
    value, chosen, rejected = value_and_slopes(
        functools.partial(loss, reference=pair(0, 0), beta=BETA), pair(*optimum)
    )
    np.testing.assert_allclose(value, least, atol=1e-12)
    np.testing.assert_allclose([chosen, rejected], 0, atol=1e-12)


def expected(loss, chance, first, second):
    """The loss where the first of two responses is the chosen one with that chance."""
    zero = pair(0, 0)
    return float(
        chance * loss(pair(first, second), zero, beta=BETA)[0]
        + (1 - chance) * loss(pair(second, first), zero, beta=BETA)[0]
    )


@pytest.mark.parametrize(
    ("loss", "level"),
    [
        # NCA: sigmoid(r) = p / (p + 1/2), that is r = log(2 p): likelihoods, not only their ratio
        (ja.nca_pair_loss, lambda p: math.log(2 * p) / BETA),
        # SPPO: log-ratio (p - 1/2) / beta
        (ja.sppo_hard_loss, lambda p: (p - 0.5) / BETA),
        # BCO without shift: sigmoid(r) = p
        (functools.partial(ja.bco_pair_loss, shift=0.0), lambda p: math.log(p / (1 - p)) / BETA),
    ],
)
def test_uncertain_preferences_fix_the_level_of_both(x64, loss, level):
    chance, step = 0.7, 1e-3
    best = level(chance), level(1 - chance)
    least = expected(loss, chance, *best)
    for move in ((step, 0), (-step, 0), (0, step), (0, -step)):
        assert expected(loss, chance, best[0] + move[0], best[1] + move[1]) > least


def test_pairs_are_two_labelled_responses(x64):
    """BCO and APO-zero of a pair are the sums of their losses of a good and a bad response."""
    good, bad = np.ones(40, bool), np.zeros(40, bool)
    sides = (POLICY.chosen, REFERENCE.chosen, good), (POLICY.rejected, REFERENCE.rejected, bad)
    for paired, single, settings in (
        (ja.bco_pair_loss, ja.bco_loss, {"beta": BETA, "shift": 0.4}),
        (ja.apo_zero_loss, ja.apo_zero_unpaired_loss, {"beta": BETA}),
    ):
        total = sum(single(*side, **settings) for side in sides)
        np.testing.assert_allclose(paired(POLICY, REFERENCE, **settings), total, rtol=1e-6)
