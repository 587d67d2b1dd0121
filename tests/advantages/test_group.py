"""Advantages within groups: by hand, against loops, unbiased where they should be, anywhere."""

from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxalign import (
    batch_scaled_advantages,
    best_of_group_advantages,
    centred_advantages,
    decoupled_advantages,
    greedy_baseline_advantages,
    grpo_advantages,
    leave_one_out_advantages,
    length_weighted_advantages,
    masked_mean,
    masked_variance,
    reinforce_plus_plus_advantages,
    running_baseline,
    weighted_scores,
)
from tests.cases.advantages.group import CASES
from tests.checks.of_cases import checks_of
from tests.numerics.test_masking import on_eight
from tests.oracles import group_advantages as oracle

TestCases = checks_of(CASES)


CLOSE = {"rtol": 1e-10, "atol": 1e-10}


def lengths_of(mask):
    """Response lengths 3, 4, ..., one for each place."""
    return 3 + np.arange(mask.size).reshape(mask.shape)


FORMS = {  # of scores and mask: ours, compiled; the oracle
    "centred": (jax.jit(centred_advantages), oracle.centred_advantages),
    "group": (jax.jit(grpo_advantages), oracle.grpo_advantages),
    "batch": (jax.jit(batch_scaled_advantages), oracle.batch_scaled_advantages),
    "leave one out": (jax.jit(leave_one_out_advantages), oracle.leave_one_out_advantages),
    "best": (jax.jit(best_of_group_advantages), oracle.best_of_group_advantages),
    "length weighted": (
        jax.jit(lambda s, m: length_weighted_advantages(s, lengths_of(m), m)),
        lambda s, m: oracle.length_weighted_advantages(s, lengths_of(m), m),
    ),
}


SLOPES = {form: jax.jit(jax.jacobian(ours)) for form, (ours, _) in FORMS.items()}
decoupled = jax.jit(decoupled_advantages)
each_form = pytest.mark.parametrize("form", FORMS)


def draw(seed, groups=7, size=5):
    """Groups of all sizes: an empty one, one response, a tie for the best, equal scores, full."""
    rng = np.random.default_rng(seed)
    scores, mask = rng.normal(size=(groups, size)), rng.random((groups, size)) < 0.7
    mask[0], mask[1] = False, np.arange(size) == 2
    mask[2:5] = True
    scores[2, :2], scores[3] = 9.0, 0.1
    return scores, mask


def test_by_hand():
    """Scores 1, 2, 6 (and a missing response): mean 3, squares 4 + 1 + 9 = 14, variance 7."""
    scores = jnp.array([[1.0, 2.0, jnp.nan, 6.0]])
    mask, lengths = jnp.array([[True, True, False, True]]), jnp.array([[4, 3, 50, 1]])
    assert centred_advantages(scores, mask).tolist() == [[-2, -1, 0, 3]]
    root = np.sqrt(7)
    standardised = [[-2 / root, -1 / root, 0, 3 / root]]
    np.testing.assert_allclose(grpo_advantages(scores, mask), standardised, rtol=1e-6)
    np.testing.assert_allclose(batch_scaled_advantages(scores, mask), standardised, rtol=1e-6)
    # others: (2 + 6) / 2, (1 + 6) / 2, (1 + 2) / 2
    assert leave_one_out_advantages(scores, mask).tolist() == [[-3, -1.5, 0, 4.5]]
    assert best_of_group_advantages(scores, mask).tolist() == [[0, 0, 0, 4]]
    # (4 * 1 + 3 * 2 + 1 * 6) / 8 = 2
    assert length_weighted_advantages(scores, lengths, mask).tolist() == [[-1, 0, 0, 4]]
    greedy = greedy_baseline_advantages(scores, jnp.array([2.5]), mask)
    assert greedy.tolist() == [[-1.5, -0.5, 0, 3.5]]


@each_form
@pytest.mark.parametrize("scale, offset", [(1.0, 0.0), (1e4, 0.0), (1e-3, 1e4)])
def test_against_loops(x64, form, scale, offset):
    ours, theirs = FORMS[form]
    scores, mask = draw(0)
    scores = scale * scores + offset
    found = ours(scores, mask)
    # 1e4 + 1e-3 x is known to 2e-12, so its standardised deviation to 2e-9
    accuracy = {"rtol": 1e-10, "atol": 1e-8} if offset else CLOSE
    np.testing.assert_allclose(found, theirs(scores, mask), **accuracy)


def test_length_weights_of_nothing_are_equal(x64):
    scores, mask = draw(1)
    found = length_weighted_advantages(scores, 0 * lengths_of(mask), mask)
    np.testing.assert_allclose(found, oracle.centred_advantages(scores, mask), **CLOSE)


def several(seed, functions=3):
    """Scores of several reward functions, some of which say nothing; of two responses, none."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(functions, 6, 4)) * np.array([1, 100, 0.01])[:, None, None]
    scores[rng.random(scores.shape) < 0.2] = np.nan
    scores[:, 0, 0], scores[:, 1, 2], scores[0, 2] = np.nan, np.nan, 0.1
    return scores, np.array([1.0, 0.5, 2.0])


def test_several_rewards_against_loops(x64):
    scores, weights = several(0)
    total, given = weighted_scores(scores, weights)
    expected, expected_given = oracle.weighted_scores(scores, weights)
    np.testing.assert_allclose(total, expected, **CLOSE)
    np.testing.assert_array_equal(given, expected_given)
    ours = decoupled(scores, weights)
    np.testing.assert_allclose(ours, oracle.decoupled_advantages(scores, weights), **CLOSE)
    assert not ours[~given].any()


def test_several_rewards_by_hand():
    # both rewards standardise to -1, 1 over root 2, whatever their scale; the second weighs half
    scores = jnp.array([[[1.0, 3.0]], [[700.0, 300.0]]])
    ours = decoupled(scores, jnp.array([1.0, 0.5]))
    np.testing.assert_allclose(ours, [[-(0.5**0.5), 0.5**0.5]], rtol=1e-6)
    assert decoupled(scores, jnp.array([1.0, 1.0])).tolist() == [[0, 0]]
    total, _ = weighted_scores(scores, jnp.array([1.0, 0.5]))
    assert total.tolist() == [[351, 153]]


# --- Theorems --------------------------------------------------------------------------------
BANDIT = np.array([0.2, -0.5, 1.0])  # logits of three actions


SCORES = np.array([1.0, 3.0, -2.0])  # of the actions


GREEDY = float(SCORES[2])  # the likeliest action is the last


G = 3


def expected_gradient(advantages):
    """E[sum_i A_i grad log pi(y_i)] over every group of G responses."""
    groups = np.array(list(product(range(3), repeat=G)))
    policy = np.exp(BANDIT) / np.exp(BANDIT).sum()
    found = np.asarray(jax.jit(advantages)(SCORES[groups], np.ones(groups.shape, bool)))
    slopes = np.eye(3)[groups] - policy
    return np.einsum("p,pg,pga->a", policy[groups].prod(axis=1), found, slopes)


def true_gradient(objective):
    return np.asarray(jax.jit(jax.grad(lambda z: objective(jax.nn.softmax(z))))(BANDIT))


def expected_score(policy):
    return jnp.sum(policy * SCORES)


def expected_best(policy):
    groups = np.array(list(product(range(3), repeat=G)))
    return jnp.sum(jnp.prod(policy[groups], axis=1) * SCORES[groups].max(axis=1))


@pytest.mark.parametrize(
    "advantages, times, objective",
    [
        (leave_one_out_advantages, G, expected_score),
        # its own score is part of the baseline: too small by (G - 1) / G, in the right direction
        (centred_advantages, G - 1, expected_score),
        (
            lambda s, m: greedy_baseline_advantages(s, np.full(len(s), GREEDY), m),
            G,
            expected_score,
        ),
        (best_of_group_advantages, 1, expected_best),
    ],
    ids=["leave one out", "centred", "greedy", "best"],
)
def test_expected_gradients(x64, advantages, times, objective):
    expected = times * true_gradient(objective)
    np.testing.assert_allclose(expected_gradient(advantages), expected, **CLOSE)


@pytest.mark.parametrize("form", ["centred", "group", "batch", "leave one out"])
def test_each_group_adds_up_to_nothing(x64, form):
    scores, mask = draw(3)
    np.testing.assert_allclose(FORMS[form][0](scores, mask).sum(axis=1), 0, atol=1e-12)


@each_form
def test_shifts_and_scales(x64, form):
    """A shift changes nothing; a scale changes nothing if the advantage is standardised."""
    advantages, (scores, mask) = FORMS[form][0], draw(4)
    factor = 1 if form in ("group", "batch") else 7
    found = advantages(7 * scores + 3, mask)
    np.testing.assert_allclose(found, factor * advantages(scores, mask), **CLOSE)


def test_each_group_may_have_its_own_scale(x64):
    scores, mask = draw(5)
    own = scores * np.arange(1, 8)[:, None] - np.arange(7)[:, None]
    np.testing.assert_allclose(grpo_advantages(own, mask), grpo_advantages(scores, mask), **CLOSE)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_standardised_scores_neither_over_nor_underflow(scale):
    """Their squares do, in float32."""
    scores = scale * jnp.array([[1.0, 2.0, 6.0]])
    expected = np.array([[-2, -1, 3]]) / np.sqrt(7)
    np.testing.assert_allclose(grpo_advantages(scores, scores != 0), expected, rtol=1e-6)


@each_form
@pytest.mark.parametrize("value", [0.1, 1e-3, 12345.678])
def test_equal_scores_have_no_advantage(form, value):
    """Exactly, even where the mean of equal numbers rounds."""
    scores = jnp.full((2, 7), value)
    assert not FORMS[form][0](scores, np.ones((2, 7), bool)).any()


ULP = np.float32(0.1) + np.float32(0.6)  # 0.70000005, and 0.7 is the next float32 below


@each_form
@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e6])
def test_scores_that_differ_by_rounding_are_equal(form, scale):
    """Sums of rewards (1, 1, 0) and (0, 0, 1) with weights 0.1, 0.6, 0.7, in float32."""
    group = np.float32(scale) * np.array([ULP, 0.7, ULP, 0.7], np.float32)
    assert group[0] != group[1]
    scores = jnp.array([group, -group, 3 * group])
    mask = np.ones((3, 4), bool)
    assert not FORMS[form][0](scores, mask).any()
    slopes, exact = (SLOPES[form](s, mask[:1]) for s in (scores[:1], jnp.full((1, 4), group[1])))
    if form != "best":  # which has a slope for one of equals, and equals here are not quite
        np.testing.assert_allclose(slopes, exact, rtol=1e-6)


@each_form
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_close_scores_keep_their_advantages(form, scale):
    """1 and 1.0001 are no rounding: as the loops in float64 have it."""
    scores = np.float32(scale) * np.array([[1, 1.0001, 1, 0.9999], [1, 2, 3, 4]], np.float32)
    mask = np.ones((2, 4), bool)
    found = FORMS[form][0](jnp.array(scores), mask)
    expected = FORMS[form][1](scores.astype(np.float64), mask)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert np.abs(expected[0]).max() > 0


def test_one_step_of_a_million_is_no_rounding():
    scores, mask = jnp.array([[1e6, 1e6 + 1]]), np.ones((1, 2), bool)
    assert centred_advantages(scores, mask).tolist() == [[-0.5, 0.5]]


def test_rewards_that_cancel_are_not_scaled_up():
    """Standardised, 0.1 + 0.6 - 0.7 times the same is no order of responses."""
    one = jnp.array([[1.0, 3.0, 2.0]])
    ours = decoupled(jnp.stack([one, 2 * one, 5 * one]), jnp.array([0.1, 0.6, -0.7]))
    assert not ours.any()


def test_equal_scores_in_two_groups_have_no_advantage():
    """The batch has a deviation, the groups have none."""
    scores, mask = jnp.array([[0.1] * 7, [0.7] * 7]), np.ones((2, 7), bool)
    assert not batch_scaled_advantages(scores, mask).any()


@each_form
def test_a_lone_response_has_no_advantage(form):
    scores, mask = jnp.array([[5.0, 1.0], [2.0, 7.0]]), np.array([[True, False], [True, True]])
    assert FORMS[form][0](scores, mask)[0].tolist() == [0, 0]
    assert FORMS[form][0](scores[:, :1], mask[:, :1])[0].tolist() == [0]


def test_leaving_one_out_does_not_cancel():
    """1e4 + 0 ... 3: a difference of float32 sums of scores would lose digits."""
    scores = 1e4 + jnp.array([[0.0, 1.0, 2.0, 3.0]], jnp.float32)
    ours = leave_one_out_advantages(scores, scores > 0)
    assert ours.tolist() == [[-2.0, float(jnp.float32(-0.5) * 4 / 3), float(jnp.float32(2) / 3), 2]]


# --- Invariances -----------------------------------------------------------------------------
@each_form
def test_what_is_masked_never_counts(form):
    scores, mask = draw(6)
    advantages = FORMS[form][0]
    found = advantages(np.where(mask, scores, np.nan), mask)
    np.testing.assert_array_equal(found, advantages(scores, mask))
    assert not found[~mask].any()


@pytest.mark.parametrize("form", sorted(set(FORMS) - {"length weighted"}))  # lengths have places
def test_padding_and_order_change_nothing(form):
    """Missing responses in between, missing groups, any order: the same numbers."""
    advantages = FORMS[form][0]
    scores, mask = draw(6)
    wide, wide_mask = np.full((9, 8), np.nan), np.zeros((9, 8), bool)
    rows, columns = np.array([8, 1, 2, 6, 4, 5, 0])[:, None], np.array([6, 0, 7, 3, 2])
    wide[rows, columns], wide_mask[rows, columns] = scores, mask
    found = advantages(wide, wide_mask)[rows, columns]
    np.testing.assert_allclose(found, advantages(scores, mask), rtol=1e-5, atol=1e-6)


LAYOUTS = {  # of scores [16, 5], mask, axis_name: [16, 5]
    "batch": batch_scaled_advantages,
    "tokens": partial(reinforce_plus_plus_advantages, gamma=0.9),
    "decoupled": lambda s, m, axis_name: decoupled_advantages(
        jnp.stack([jnp.where(m, s, jnp.nan), jnp.where(m, jnp.sin(5 * s), jnp.nan)]),
        jnp.array([1.0, 0.5]),
        axis_name=axis_name,
    ),
    "running": lambda s, m, axis_name: jnp.broadcast_to(
        running_baseline(jnp.float32(5.0), s, m, decay=0.75, axis_name=axis_name), s.shape
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["pmap", "shard_map"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_eight_devices_as_one(name, layout):
    """Device 0 has everything, the last one nothing."""
    scores = np.random.default_rng(7).normal(3.0, 2.0, (16, 5)).astype(np.float32)
    mask = np.arange(16)[:, None] + np.arange(5) < 11
    fn = LAYOUTS[name]
    found = on_eight(partial(fn, axis_name="i"))[layout](scores, mask)
    whole = jax.jit(partial(fn, axis_name=None))(scores, mask)
    np.testing.assert_allclose(found, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@each_form
def test_gradients(x64, form):
    """Of scores, for those who learn them; the largest has none where it is not unique."""
    scores, mask = draw(8)
    fn = jax.jit(lambda s: FORMS[form][0](s, mask[4:]))
    check_grads(fn, (scores[4:],), order=2, modes=["rev"])
    total = jax.jit(jax.grad(lambda s: FORMS[form][0](s, mask).sum()))
    whole = total(np.where(mask, scores, np.nan))
    assert jnp.isfinite(whole).all() and not whole[~mask].any()


@each_form
def test_bfloat16_and_integers_are_computed_in_float32(form):
    scores, mask = draw(9)
    narrow = jnp.asarray(scores, jnp.bfloat16)
    ours = FORMS[form][0](narrow, mask)
    assert ours.dtype == jnp.float32
    np.testing.assert_array_equal(ours, FORMS[form][0](narrow.astype(jnp.float32), mask))
    counts = jnp.array([[0, 1, 1]])
    assert FORMS[form][0](counts, counts >= 0).dtype == jnp.float32


@each_form
def test_shapes_must_agree(form):
    with pytest.raises(AssertionError):
        FORMS[form][0](jnp.zeros((2, 3)), np.ones((2, 1), bool))


def test_other_shapes_must_agree():
    two = jnp.zeros((2, 3))
    with pytest.raises(AssertionError):
        length_weighted_advantages(two, two[:, :1], two == 0)
    with pytest.raises(AssertionError):
        greedy_baseline_advantages(two, jnp.zeros(3), two == 0)
    with pytest.raises(AssertionError):
        weighted_scores(two, jnp.zeros(3))
    with pytest.raises(AssertionError):
        decoupled_advantages(two, jnp.zeros(2))


def test_decoupled_advantages_are_standardised(x64):
    scores, weights = several(1)
    mask = ~np.isnan(scores).all(axis=0)
    ours = decoupled(scores, weights)
    assert abs(float(masked_mean(ours, mask))) < 1e-12
    assert float(masked_variance(ours, mask, ddof=1)) == pytest.approx(1, abs=1e-12)
    assert not decoupled(np.full((2, 3, 4), 0.1), np.ones(2)).any()
    assert not decoupled(np.full((2, 3, 4), np.nan), np.ones(2)).any()


def test_weighted_scores_takes_a_weight_a_reward_function():
    with pytest.raises(AssertionError):
        weighted_scores(jnp.zeros((2, 3)), jnp.ones((2, 1)))


@pytest.mark.parametrize("count", range(2, 12))
def test_equal_scores_are_centred_to_exactly_0_beside_masked_ones(count):
    """Differences from the lowest score are 0; a sum of scores would leave a rounding error."""
    mask = jnp.arange(12) < count
    scores = jnp.where(mask, jnp.asarray([[0.1], [0.7], [1e6 / 3]]), 5.0)
    centred = centred_advantages(scores, jnp.broadcast_to(mask, scores.shape))
    np.testing.assert_array_equal(centred, np.zeros(scores.shape))


@pytest.mark.parametrize("weights", [(1,), (2, 1)])
def test_decoupled_advantages_take_a_weight_a_reward_function(weights):
    """One weight for two functions would be used for both."""
    with pytest.raises(AssertionError):
        decoupled_advantages(jnp.ones((2, 3, 4)), jnp.ones(weights))


def test_baseline_of_one_token_in_all():
    """By hand: the response of one token sets the baseline, 1; the other has none."""
    scores, lengths = jnp.asarray([[1.0, 3.0]]), jnp.asarray([[1, 0]])
    advantages = length_weighted_advantages(scores, lengths, jnp.ones((1, 2), bool))
    np.testing.assert_array_equal(advantages, [[0.0, 2.0]])


def test_best_of_two():
    """By hand: 4 - 1."""
    advantages = best_of_group_advantages(jnp.asarray([[1.0, 4.0]]), jnp.ones((1, 2), bool))
    np.testing.assert_array_equal(advantages, [[0.0, 3.0]])
