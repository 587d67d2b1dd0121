"""What the papers say of losses on labels, rankings, judges and teachers."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxalign as ja
from jaxalign import RunningMean

LOG2 = math.log(2)
RNG = np.random.default_rng(0)


class TestRankings:
    every = np.ones((1, 4), bool)

    def test_two_candidates_are_a_comparison(self):
        scores = RNG.normal(size=(20, 2)).astype(np.float32)
        ranked = ja.plackett_luce_loss(scores, np.ones((20, 2), bool))
        np.testing.assert_allclose(
            ranked, ja.bradley_terry_loss(scores[:, 0] - scores[:, 1]), rtol=1e-5, atol=1e-6
        )

    def test_only_differences_of_scores_count(self, x64):
        scores = RNG.normal(size=(1, 4))
        loss = functools.partial(ja.plackett_luce_loss, mask=self.every)
        np.testing.assert_allclose(loss(scores + 50), loss(scores), rtol=1e-12)

    def test_chances_of_all_orders_sum_to_one(self, x64):
        scores = np.array(list(itertools.permutations([0.3, -1.2, 2.0, 0.5])))
        chances = jnp.exp(-ja.plackett_luce_loss(scores, np.ones((24, 4), bool)))
        assert float(chances.sum()) == pytest.approx(1, abs=1e-12)
        assert int(jnp.argmax(chances)) == scores.tolist().index([2.0, 0.5, 0.3, -1.2])

    def test_one_candidate_or_none_says_nothing(self):
        mask = np.array([[False, True, False, False], [False] * 4])
        np.testing.assert_array_equal(ja.plackett_luce_loss(RNG.normal(size=(2, 4)), mask), 0)


@pytest.mark.parametrize(
    "call",
    [
        lambda: ja.plackett_luce_loss(jnp.zeros(3), jnp.ones(3, bool)),
        lambda: ja.plackett_luce_loss(jnp.zeros((2, 3, 4)), jnp.ones((2, 3, 4), bool)),
        lambda: ja.length_desensitised_logps(
            jnp.zeros(3), jnp.ones(3, bool), jnp.ones(3), alpha=0.5
        ),
        lambda: ja.bradley_terry_loss(jnp.zeros(3), margins=jnp.zeros((3, 1))),
        lambda: ja.bradley_terry_loss(jnp.zeros(3), margins=jnp.zeros(1)),
    ],
)
def test_other_ranks_are_refused(call):
    with pytest.raises(AssertionError):
        call()


def test_margins_by_hand():
    # sigmoid(log 3) = 3/4; the margin takes log 3 away
    assert float(ja.bradley_terry_loss(jnp.log(3.0))) == pytest.approx(-math.log(0.75))
    assert float(ja.bradley_terry_loss(jnp.log(3.0), margins=math.log(3))) == pytest.approx(LOG2)


def test_a_step_is_right_as_often_as_its_label_says(x64):
    """A hard label is a comparison with 0; a soft one is met where the chance is the label."""
    logits = np.array([-2.0, 0.5, 3.0])
    right = ja.process_reward_loss(logits, np.ones(3))
    np.testing.assert_allclose(right, ja.bradley_terry_loss(logits), rtol=1e-12)
    np.testing.assert_allclose(ja.process_reward_loss(-logits, np.zeros(3)), right, rtol=1e-12)
    soft = np.array([0.1, 0.5, 0.8])
    slope = jax.grad(lambda x: ja.process_reward_loss(x, soft).sum())
    np.testing.assert_allclose(slope(np.log(soft / (1 - soft))), 0, atol=1e-15)


class TestLabels:
    """KTO, BCO and APO on single responses."""

    losses = (
        functools.partial(
            ja.kto_loss, beta=0.5, kl=0.3, desirable_weight=1.2, undesirable_weight=0.7
        ),
        functools.partial(ja.bco_loss, beta=0.5, shift=0.3),
        functools.partial(ja.apo_zero_unpaired_loss, beta=0.5),
    )

    @pytest.mark.parametrize("loss", losses)
    def test_good_ones_become_likelier_and_bad_ones_less_likely(self, loss):
        logps = np.linspace(-4.0, 4.0, 9)
        for good in (True, False):
            labels = np.full(9, good)
            slopes = jax.grad(lambda x, y=labels: loss(x, np.zeros(9), y).sum())(logps)
            assert (slopes < 0).all() if good else (slopes > 0).all()

    def test_values_where_the_reward_is_the_reference_point(self):
        """KTO half a weight, BCO log 2, APO 1/2."""
        labels = np.array([True, False])
        kto, bco, apo = self.losses
        np.testing.assert_allclose(kto(np.full(2, 0.3), np.zeros(2), labels), [0.6, 0.35])
        # a reward of 0.5 * 0.6 is the shift
        np.testing.assert_allclose(bco(np.full(2, 0.6), np.zeros(2), labels), LOG2, rtol=1e-6)
        np.testing.assert_allclose(apo(np.zeros(2), np.zeros(2), labels), 0.5)

    def test_limits_of_kto(self):
        """A loss is at most its weight, and at the ends it is flat."""
        far = np.array([1e4, -1e4, 1e4, -1e4])
        labels = np.array([True, True, False, False])

        def loss(logps):
            return self.losses[0](logps, np.zeros(4), labels)

        np.testing.assert_allclose(loss(far), [0, 1.2, 0.7, 0], rtol=1e-6)
        assert not np.any(jax.grad(lambda x: loss(x).sum())(far))

    def test_a_larger_kl_asks_more_of_good_responses(self):
        zero, good = np.zeros(1), np.ones(1, bool)
        low, high = (ja.kto_loss(zero, zero, good, beta=1.0, kl=kl) for kl in (0.0, 1.0))
        assert float(high[0]) > float(low[0]) == 0.5
        low, high = (ja.kto_loss(zero, zero, ~good, beta=1.0, kl=kl) for kl in (0.0, 1.0))
        assert float(high[0]) < float(low[0]) == 0.5

    def test_bco_learns_the_chance_of_being_good(self, x64):
        chance, shift = 0.7, 0.4

        def expected(logp):
            good, bad = (
                ja.bco_loss(logp, jnp.zeros(1), np.full(1, y), beta=0.5, shift=shift)
                for y in (True, False)
            )
            return (chance * good + (1 - chance) * bad).sum()

        best = (shift + math.log(chance / (1 - chance))) / 0.5
        assert float(jax.grad(expected)(jnp.full(1, best))[0]) == pytest.approx(0, abs=1e-15)

    def test_the_kl_estimate_is_never_negative(self):
        worse, better = np.array([-3.0, -1.0]), np.array([-1.0, -1.0])
        assert float(ja.kto_kl(worse, better, np.ones(2))) == 0
        assert float(ja.kto_kl(better, worse, np.ones(2))) == 1
        assert float(ja.kto_kl(better, worse, np.zeros(2))) == 0  # nothing but padding


class TestShift:
    def test_batch_after_batch_is_all_at_once(self, x64):
        rewards, mask = RNG.normal(size=(5, 3)), RNG.random((5, 3)) < 0.7
        state = RunningMean(mean=jnp.zeros(()), count=jnp.zeros(()))
        for row, real in zip(rewards, mask, strict=True):
            state = ja.running_shift(state, row, real)
        assert float(state.mean) == pytest.approx(rewards[mask].mean(), abs=1e-14)
        assert float(state.count) == mask.sum()

    def test_one_reward_is_the_mean(self):
        start = RunningMean(mean=jnp.zeros(()), count=jnp.zeros(()))
        after = ja.running_shift(start, jnp.array([3.0]), jnp.array([True]))
        assert (after.mean, after.count) == (3, 1)

    def test_an_empty_batch_changes_nothing(self):
        state = RunningMean(mean=jnp.float32(0.3), count=jnp.float32(2.0))
        after = ja.running_shift(state, jnp.full(3, jnp.nan), jnp.zeros(3, bool))
        assert (after.mean, after.count) == (state.mean, state.count)

    def test_bad_prompts_are_weighed_like_good_ones(self, x64):
        """Bayes: with as many good as bad, q_bad p / (1 - p) is q_good."""
        good, bad = np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.3, 0.6])
        weights = ja.density_ratios(good / (good + bad), lowest=1e-3, highest=1e3)
        np.testing.assert_allclose(bad * weights, good, rtol=1e-12)


class TestJudges:
    def test_ties_weigh_nothing(self):
        first, second = jnp.array([-1.0, -2.0, -3.0]), jnp.array([-4.0, -5.0, -6.0])
        pair, weights = ja.ranked(first, second, jnp.array([1.0, 0.0, 2.0]), jnp.array([0, 1, 2.0]))
        assert pair.chosen.tolist() == [-1, -5, -3]
        assert pair.rejected.tolist() == [-4, -2, -6]
        assert weights.tolist() == [1, 1, 0]

    def test_scores_that_differ_by_rounding_are_ties(self):
        logps, one = jnp.array([-1.0, -2.0, -3.0]), np.float32(1)
        scores = np.array([np.float32(0.1) + np.float32(0.6), 1.0001, -1e-9], np.float32)
        _, weights = ja.ranked(logps, logps, scores, np.array([0.7, one, 1e-9], np.float32))
        assert weights.tolist() == [0, 1, 1]

    def test_without_bonus_xpo_is_dpo(self):
        policy, reference = (
            ja.PairLogps(chosen=x[0], rejected=x[1]) for x in RNG.normal(size=(2, 2, 9))
        )
        sample = RNG.normal(size=9)
        xpo = functools.partial(ja.xpo_loss, policy, reference, beta=0.5)
        dpo = ja.dpo_loss(policy, reference, beta=0.5)
        np.testing.assert_array_equal(xpo(sample, alpha=0.0), dpo)
        slope = jax.grad(lambda x: xpo(x, alpha=0.3).sum())(sample)
        np.testing.assert_allclose(slope, 0.3, rtol=1e-6)  # descent makes the sample less likely

    def test_nash_md_is_a_policy_gradient(self):
        """Only the log-probability in front is differentiated: the slope is minus the value."""
        policy, reference, wins = RNG.normal(size=(3, 9)).astype(np.float32)
        slope = jax.grad(lambda x: ja.nash_md_loss(x, reference, wins, beta=0.3).sum())(policy)
        value = wins - 0.5 - 0.3 * (policy - reference)
        np.testing.assert_allclose(slope, -value, rtol=1e-5, atol=1e-6)

    def test_nash_md_rests_at_the_regularised_best_response(self, x64):
        """pi_ref exp(P / beta) / Z, P the chances to beat the opponent."""
        reference, wins, beta = np.log([0.2, 0.5, 0.3]), np.array([0.9, 0.4, 0.2]), 0.5

        def slope(logits):
            chances = jax.lax.stop_gradient(jax.nn.softmax(logits))

            def loss(logits):
                logps = jax.nn.log_softmax(logits)
                return chances @ ja.nash_md_loss(logps, reference, wins, beta=beta)

            return jax.grad(loss)(logits)

        np.testing.assert_allclose(slope(reference + wins / beta), 0, atol=1e-12)
        assert np.abs(slope(reference)).max() > 0.05

    def test_the_opponent_is_one_policy_at_either_end(self):
        """Also where the other forbids a token."""
        policy, reference = jnp.array([[0.0, 1.0, -jnp.inf]]), jnp.array([[2.0, -jnp.inf, 0.0]])
        mix = functools.partial(ja.mixture_logits, policy, reference)
        np.testing.assert_allclose(mix(mixture=0.0), jax.nn.log_softmax(policy), rtol=1e-6)
        np.testing.assert_allclose(mix(mixture=1.0), jax.nn.log_softmax(reference), rtol=1e-6)
        # between, only what both allow
        assert np.isfinite(mix(mixture=0.5)).tolist() == [[True, False, False]]


class TestDistillation:
    student, teacher = RNG.normal(0.0, 2.0, (2, 6, 4))
    jsd = staticmethod(ja.generalised_jsd_loss)

    def test_limits_are_the_two_kls(self, x64):
        """L / b -> KL(p, q) as b -> 0, L / (1 - b) -> KL(q, p) as b -> 1; errors are of order b."""
        both = self.student, self.teacher
        near = 1e-5
        forward = self.jsd(*both, mixture=near) / near
        np.testing.assert_allclose(forward, ja.forward_kl_loss(*both), rtol=1e-3)
        reverse = self.jsd(*both, mixture=1 - near) / near
        np.testing.assert_allclose(reverse, ja.reverse_kl_loss(*both), rtol=1e-3)
        gap = ja.forward_kl_loss(*both) - ja.reverse_kl_loss(*both)
        assert np.abs(gap).min() > 0.01  # it matters which

    def test_at_one_half_the_sides_are_alike(self):
        one = self.jsd(self.student, self.teacher, mixture=0.5)
        other = self.jsd(self.teacher, self.student, mixture=0.5)
        np.testing.assert_allclose(one, other, rtol=1e-5)
        assert (one > 0).all() and (one < LOG2).all()
        one = self.jsd(self.student, self.teacher, mixture=0.3)
        other = self.jsd(self.teacher, self.student, mixture=0.7)
        np.testing.assert_allclose(one, other, rtol=1e-5)

    def test_disjoint_distributions_are_at_the_entropy_of_the_mixture(self):
        one = jnp.array([0.0, -jnp.inf])
        for b in (0.5, 0.2):
            entropy = -b * math.log(b) - (1 - b) * math.log(1 - b)
            assert float(self.jsd(one, one[::-1], mixture=b)) == pytest.approx(entropy, rel=1e-6)

    @pytest.mark.parametrize(
        "loss",
        [
            ja.forward_kl_loss,
            ja.reverse_kl_loss,
            functools.partial(ja.generalised_jsd_loss, mixture=0.3),
        ],
    )
    def test_the_teacher_is_the_least(self, x64, loss):
        value, slope = jax.value_and_grad(lambda s: loss(s, self.teacher).sum())(self.teacher + 5)
        assert float(value) == pytest.approx(0, abs=1e-14)
        np.testing.assert_allclose(slope, 0, atol=1e-14)
        assert (loss(self.student, self.teacher) > 0).all()
