"""Theorems on losses on pairs: at the reference, at the optimum, at the limits."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxalign as ja
from jaxalign import PairLengths, PairLogps

BETA, E, LOG2 = 0.3, 0.2, math.log(2)
LENGTHS = PairLengths(chosen=np.array([2.0]), rejected=np.array([4.0]))
ONES = np.ones(1)
HALF = functools.partial(ja.alpha_score, alpha=0.5)


def pair(chosen, rejected) -> PairLogps:
    return PairLogps(
        chosen=jnp.atleast_1d(jnp.asarray(chosen, float)),
        rejected=jnp.atleast_1d(jnp.asarray(rejected, float)),
    )


def value_and_slopes(loss, policy):
    """The sum of the losses, and its slope in each log-probability."""
    value, slopes = jax.value_and_grad(lambda policy: jnp.sum(loss(policy)))(policy)
    return float(value), slopes.chosen, slopes.rejected


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


RANDOM = -np.random.default_rng(0).exponential(4.0, (4, 40))
POLICY, REFERENCE = PAIRS = [PairLogps(chosen=c, rejected=r) for c, r in RANDOM.reshape(2, 2, 40)]
MANY = PairLengths(chosen=np.full(40, 3.0), rejected=np.full(40, 5.0))
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


def test_apo_down_lowers_both_where_they_are_told_apart():
    """D'Oosterlinck et al. 2024: the rejected one more so."""
    zero = pair(0, 0)
    loss = functools.partial(ja.apo_down_loss, reference=zero, beta=1.0)
    _, chosen, rejected = value_and_slopes(loss, pair(-0.5, -2.0))
    assert 0 < float(chosen[0]) < float(rejected[0])


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


INVERSE = {  # t for which f'(t) = s, and the bound that s stays below
    "reverse_kl": (ja.reverse_kl_score, np.exp, 30.0),
    "forward_kl": (ja.forward_kl_score, lambda s: 1 / (1 - s), 1.0),
    "jensen_shannon": (ja.jensen_shannon_score, lambda s: np.exp(s) / (2 - np.exp(s)), LOG2),
    "alpha": (HALF, lambda s: (1 - s / 2) ** -2, 2.0),
}


@pytest.mark.parametrize("name", INVERSE)
def test_f_dpo_finds_the_optimum_of_its_divergence(x64, name):
    """pi = pi_ref (f')^-1((r - c) / beta), c such that pi sums to 1, is stationary."""
    score, inverse, bound = INVERSE[name]
    rewards, base = np.array([0.5, -0.4, 0.1]), np.array([0.2, 0.5, 0.3])
    low, high = rewards.max() - BETA * bound + 1e-12, 10.0
    for _ in range(200):
        middle = (low + high) / 2
        total = base @ inverse((rewards - middle) / BETA)
        low, high = (middle, high) if total > 1 else (low, middle)
    policy = base * inverse((rewards - low) / BETA)
    assert policy.sum() == pytest.approx(1, abs=1e-9) and np.abs(policy - base).max() > 0.05
    i, j = np.array([(i, j) for i in range(3) for j in range(3) if i != j]).T
    weights = jax.nn.sigmoid(rewards[i] - rewards[j])
    reference = pair(np.log(base[i]), np.log(base[j]))

    def loss(logits):
        logps = jax.nn.log_softmax(logits)
        pairs = PairLogps(chosen=logps[i], rejected=logps[j])
        return weights @ ja.f_dpo_loss(pairs, reference, beta=BETA, score=score)

    slopes = jax.jit(jax.grad(loss))
    np.testing.assert_allclose(slopes(jnp.log(policy)), 0, atol=1e-9)
    assert np.abs(slopes(jnp.log(base))).max() > 0.01


def test_divergences_meet_in_the_alpha_family(x64):
    log_t = np.linspace(-2.0, 2.0, 9)
    near = functools.partial(ja.alpha_score, log_t)
    np.testing.assert_allclose(near(alpha=1e-9), ja.reverse_kl_score(log_t), atol=1e-7)
    np.testing.assert_array_equal(near(alpha=1.0), ja.forward_kl_score(log_t))
    # Jensen-Shannon: log(2 t / (1 + t)) of t = 3 is log 1.5
    np.testing.assert_allclose(ja.jensen_shannon_score(np.log([3.0])), math.log(1.5), rtol=1e-12)
    dpo = ja.dpo_loss(POLICY, REFERENCE, beta=BETA, label_smoothing=E)
    f_dpo = functools.partial(ja.f_dpo_loss, POLICY, REFERENCE, beta=BETA, label_smoothing=E)
    np.testing.assert_array_equal(f_dpo(score=ja.reverse_kl_score), dpo)


@pytest.mark.parametrize("margin", [1.0, 1.5])
def test_hinge_leaves_pairs_at_and_beyond_the_margin_alone(margin):
    loss = functools.partial(ja.hinge_loss, reference=pair(0, 0), beta=1.0)
    value, chosen, rejected = value_and_slopes(loss, pair(margin, 0))
    assert value == 0 and not np.any(chosen) and not np.any(rejected)
    assert value_and_slopes(loss, pair(0.5, 0))[0] == 0.5


def test_apo_saturates():
    """Bounded by 2, and without gradient where the policy is far from the reference."""
    for loss in (ja.apo_zero_loss, ja.apo_down_loss):
        bounded = functools.partial(loss, reference=pair(0, 0), beta=1.0)
        for far in (pair(200, -200), pair(-200, 200), pair(-200, -200)):
            value, chosen, rejected = value_and_slopes(bounded, far)
            assert 0 <= value <= 2
            if loss is ja.apo_zero_loss:
                assert not np.any(chosen) and not np.any(rejected)


def test_dpo_by_hand():
    # rewards 0.5 (-1 + 3) = 1 and 0.5 (-2 + 1) = -0.5: u = 1.5
    policy, reference = pair(-1, -2), pair(-3, -1)
    rewards = ja.implicit_rewards(policy, reference, beta=0.5)
    assert (rewards.chosen.tolist(), rewards.rejected.tolist()) == ([1], [-0.5])
    loss = float(ja.dpo_loss(policy, reference, beta=0.5)[0])
    assert loss == pytest.approx(np.log1p(np.exp(-1.5)))
    # a tenth of the label on the other side adds 0.1 u, without noise it takes it away, over 0.8
    smoothed = ja.dpo_loss(policy, reference, beta=0.5, label_smoothing=0.1)
    robust = ja.robust_dpo_loss(policy, reference, beta=0.5, label_smoothing=0.1)
    assert float(smoothed[0]) == pytest.approx(loss + 0.15)
    assert float(robust[0]) == pytest.approx(loss - 0.15 / 0.8)


@pytest.mark.parametrize(("gap", "slope"), [(1e4, 0), (-1e4, -1)])
def test_dpo_is_flat_where_right_and_straight_where_wrong(gap, slope):
    loss = functools.partial(ja.dpo_loss, reference=pair(0, 0), beta=1.0)
    value, chosen, rejected = value_and_slopes(loss, pair(gap, 0))
    assert (value, float(chosen[0]), float(rejected[0])) == (max(-gap, 0), slope, -slope)


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


def test_bco_is_above_dpo():
    """Jung et al. 2024: the bound that it descends on, at any shift."""
    for shift in (-2.0, 0.0, 0.7):
        bco = ja.bco_pair_loss(POLICY, REFERENCE, beta=BETA, shift=shift)
        assert (bco > ja.dpo_loss(POLICY, REFERENCE, beta=BETA)).all()


def test_discopop_is_logistic_on_the_left_and_exponential_on_the_right(x64):
    zero = pair(0, 0)
    left = ja.discopop_loss(pair(-30.0, 0), zero, beta=0.1)
    np.testing.assert_allclose(left, ja.dpo_loss(pair(-30.0, 0), zero, beta=0.1), rtol=1e-9)
    right = ja.discopop_loss(pair(30.0, 0), zero, beta=0.1)
    np.testing.assert_allclose(right, math.exp(-3), rtol=1e-9)


class TestLengths:
    def test_ipo_of_averages(self, x64):
        """Of texts twice as long with twice the log-ratio the same; of single tokens IPO itself."""
        double = functools.partial(jax.tree.map, lambda x: 2 * x)
        once = ja.averaged_ipo_loss(POLICY, REFERENCE, MANY, beta=BETA)
        twice = ja.averaged_ipo_loss(*map(double, (POLICY, REFERENCE, MANY)), beta=BETA)
        np.testing.assert_allclose(twice, once, rtol=1e-12)
        ones = PairLengths(chosen=np.ones(40), rejected=np.ones(40))
        np.testing.assert_array_equal(
            ja.averaged_ipo_loss(POLICY, REFERENCE, ones, beta=BETA),
            ja.ipo_loss(POLICY, REFERENCE, beta=BETA),
        )

    def test_simpo_does_not_reward_length(self, x64):
        double = functools.partial(jax.tree.map, lambda x: 2 * x)
        simpo = functools.partial(ja.simpo_loss, beta=2.0, gamma=0.5)
        once = simpo(POLICY, MANY)
        np.testing.assert_allclose(simpo(double(POLICY), double(MANY)), once, rtol=1e-12)
        alphapo = ja.alphapo_loss(POLICY, MANY, beta=2.0, gamma=0.5, alpha=1e-9)
        np.testing.assert_allclose(alphapo, once, atol=1e-6)

    def test_simpo_by_hand(self):
        # 2 (-1) - 2 (-2) - 0.5 = 1.5
        loss = ja.simpo_loss(pair(-2.0, -8.0), LENGTHS, beta=2.0, gamma=0.5)
        np.testing.assert_allclose(loss, np.log1p(np.exp(-1.5)), rtol=1e-6)

    def test_what_is_longer_than_the_other_is_discounted(self):
        """LD-DPO: at 1 the plain sums and DPO, at 0 the tokens that both have."""
        logps = np.array([[-1.0, -2.0, -4.0, -8.0]])
        mask = np.array([[True, False, True, True]])

        def summed(alpha):
            return float(ja.length_desensitised_logps(logps, mask, np.array([2]), alpha=alpha)[0])

        assert (summed(1.0), summed(0.0), summed(0.25)) == (-13, -5, -7)

    def test_wpo_weighs_what_the_policy_would_write(self):
        logps = -np.random.default_rng(1).exponential(1.0, (6, 4)).astype(np.float32)
        mask = np.arange(4) < np.arange(6)[:, None]
        weights = ja.wpo_weights(logps, mask)
        assert ((weights > 0) & (weights <= 1)).all() and weights[0] == 1 > weights[-1]
        np.testing.assert_array_equal(ja.wpo_weights(np.zeros((6, 4)), mask), 1)
        # a uniform policy draws any token as often as its chance to draw one twice: aligned, 1
        uniform = np.full((6, 4), -np.log(7.0), np.float32)
        np.testing.assert_array_equal(ja.wpo_weights(uniform, mask, uniform), 1)


class TestLikelihoodBeside:
    """CPO, ORPO, TPO: preferences and imitation in one sum."""

    def test_by_hand(self):
        # log(1 + exp(-0.5 (-2 + 8))) and -2 / 2, of weight 0.25
        cpo = ja.cpo_loss(pair(-2.0, -8.0), LENGTHS, beta=0.5, nll_coef=0.25)
        np.testing.assert_allclose(cpo, np.log1p(np.exp(-3.0)) + 0.25, rtol=1e-6)
        # p = 1/2 and 1/4: odds 1 and 1/3; -log sigmoid(log 3) = log 4/3
        logs = pair(np.log(0.25), np.log(1 / 256))
        orpo = ja.orpo_loss(logs, LENGTHS, beta=2.0)
        np.testing.assert_allclose(orpo, LOG2 + 2 * np.log(4 / 3), rtol=1e-6)

    def test_without_the_third_text_tpo_is_a_preference_loss(self):
        gold = np.full(40, -3.0), np.full(40, 2.0)
        alone = {"nll_coef": 0.0, "label_smoothing": E}
        np.testing.assert_array_equal(
            ja.tpo_loss(POLICY, *gold, beta=BETA, **alone),
            ja.dpo_loss(POLICY, ja.no_reference(POLICY), beta=BETA, label_smoothing=E),
        )
        np.testing.assert_array_equal(
            ja.tpo_l_loss(POLICY, MANY, *gold, beta=2.0, gamma=0.5, **alone),
            ja.simpo_loss(POLICY, MANY, beta=2.0, gamma=0.5, label_smoothing=E),
        )
        more = ja.tpo_loss(POLICY, *gold, beta=BETA) - ja.dpo_loss(
            POLICY, ja.no_reference(POLICY), beta=BETA
        )
        np.testing.assert_allclose(more, 1.5, rtol=1e-5)

    def test_odds_of_near_certain_texts(self):
        """p = 1 has infinite odds; value and gradient stay numbers, the gradient large below it."""
        at = pair([0.0, -1e-38, -1e-7, -2.0], [-1.0, 0.0, -1e-30, 0.0])
        lengths = PairLengths(chosen=np.ones(4), rejected=np.ones(4))
        loss = functools.partial(ja.orpo_loss, lengths=lengths, beta=1.0)
        value, chosen, rejected = value_and_slopes(loss, at)
        assert np.isfinite(value) and np.isfinite(chosen).all() and np.isfinite(rejected).all()
        # d/dx log odds = 1 / (1 - p): 1e7 at p = 1 - 1e-7, where the chosen one has lost
        assert float(chosen[2]) == pytest.approx(-1e7, rel=1e-3)

    def test_odds_of_the_opposite(self, x64):
        chance = np.array([0.001, 0.3, 0.5, 0.999])
        opposite = ja.log_odds(np.log1p(-chance))
        np.testing.assert_allclose(ja.log_odds(np.log(chance)), -opposite, rtol=1e-10, atol=1e-15)


class TestOptimalTransport:
    weights = np.ones(40)

    def test_no_other_pairing_costs_less(self):
        """The loss is convex in the difference: sorting both sides is the cheapest match."""
        margins = POLICY.chosen - POLICY.rejected
        theirs = REFERENCE.chosen - REFERENCE.rejected
        aot = float(ja.aot_loss(POLICY, REFERENCE, self.weights, beta=BETA).sum())
        rng = np.random.default_rng(2)
        for _ in range(5):
            order = rng.permutation(40)
            other = jax.nn.softplus(-BETA * (margins - theirs[order])).sum()
            assert aot < float(other)
        ascending = np.argsort(margins), np.argsort(theirs)
        least = jax.nn.softplus(-BETA * (margins[ascending[0]] - theirs[ascending[1]])).sum()
        assert aot == pytest.approx(float(least), rel=1e-6)

    def test_partners_do_not_matter(self):
        """Unpaired: the bad responses in any order give every good one the same loss."""
        order = np.random.default_rng(3).permutation(40)
        moved = (PairLogps(chosen=p.chosen, rejected=p.rejected[order]) for p in PAIRS)
        np.testing.assert_allclose(
            ja.aot_unpaired_loss(*moved, self.weights, beta=BETA),
            ja.aot_unpaired_loss(*PAIRS, self.weights, beta=BETA),
            rtol=1e-6,
        )

    @pytest.mark.parametrize("loss", [ja.aot_loss, ja.aot_unpaired_loss])
    @pytest.mark.parametrize("fill", [1e4, -1e4, np.nan])
    def test_padding_has_no_rank(self, loss, fill):
        where = np.array([3, 17])
        longer = (jax.tree.map(lambda x: np.insert(x, where, fill), p) for p in PAIRS)
        padded = loss(*longer, np.insert(self.weights, where, 0.0), beta=BETA)
        real = np.insert(np.ones(40, bool), where, False)
        np.testing.assert_array_equal(padded[real], loss(*PAIRS, self.weights, beta=BETA))

    def test_ties_keep_their_order(self):
        # margins 1 1 0 have ranks 1 2 0, theirs 5 7 9
        policy, reference = pair([1, 1, 0], [0, 0, 0]), pair([9, 5, 7], [0, 0, 0])
        found = ja.aot_loss(policy, reference, np.ones(3), beta=1.0)
        np.testing.assert_allclose(found, np.log1p(np.exp([6.0, 8.0, 5.0])), rtol=1e-6)
