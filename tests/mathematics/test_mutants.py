"""What `python -m benchmarks.mutation` found no test to notice, function by function."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxalign import (
    best_of_group_advantages,
    centred_advantages,
    constant_length,
    decoupled_advantages,
    effective_sample_size,
    exact_kl,
    fused_token_logps,
    generalised_jsd_loss,
    greedy_baseline_advantages,
    length_weighted_advantages,
    masked_variance,
    mixture_logits,
    on_policy_rows,
    overlong_penalties,
    ppo_policy_clipped,
    probability_ratios,
    ratio_diagnostics,
    running_baseline,
    sapo_loss,
    token_logps,
    top_entropy_mask,
    vespo_weights,
    vtrace,
    weighted_scores,
    whiten,
    wpo_weights,
)
from jaxalign.logprobs import _time_chunks, shift_right, tempered
from tests.specimens.collection import SPECIMENS
from tests.specimens.specimen import cast

WITH_TIME = (  # functions that take rows and time apart, or groups, or single numbers
    *("plackett_luce_loss", "length_desensitised_logps", "each_token", "sequence_log_ratios"),
    *("gmpo_loss", "vespo_weights", "on_policy_rows", "token_mean", "sequence_mean"),
    *("sequence_sum", "constant_length", "without_truncated", "vtrace", "gae", "gae_associative"),
    *("shaped_rewards", "overlong_penalties", "centred_advantages", "best_of_group_advantages"),
    *("greedy_baseline_advantages", "weighted_scores", "decoupled_advantages", "running_baseline"),
    *("adapted_coef", "token_logps", "token_entropy", "sequence_logps", "n_step_returns"),
    "fused_token_logps_and_entropy",
)


@pytest.mark.parametrize("name", WITH_TIME)
def test_an_axis_too_many_is_refused(name):
    """Shapes that agree with each other may still not be those that the function is of."""
    specimen = SPECIMENS[name]
    deeper = jax.tree.map(lambda x: np.asarray(x)[..., None], specimen.arguments())
    with pytest.raises(AssertionError):
        jax.eval_shape(functools.partial(specimen, cast(deeper, "float32"), **specimen.settings[0]))


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4)])
def test_constant_length_takes_a_matrix(shape):
    """A mask with one more axis would be counted along the wrong one."""
    with pytest.raises(AssertionError):
        constant_length(jnp.ones(shape, bool), length=4)


def test_token_logps_takes_a_batch():
    """With an axis more, time would be taken for rows."""
    with pytest.raises(AssertionError):
        token_logps(jnp.zeros((1, 2, 3, 4)), jnp.zeros((1, 2, 3), int))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_temperature_1_leaves_logits_alone(dtype):
    """To the bit, type included."""
    logits = jnp.asarray([0.1, 300.7, -2.5], dtype)
    same = tempered(logits, 1.0)
    assert same.dtype == dtype
    np.testing.assert_array_equal(np.asarray(same, float), np.asarray(logits, float))


def test_fused_token_logps_takes_token_ids():
    """Reals would be compared with column numbers, and seldom be equal to one."""
    hidden, unembedding = jnp.zeros((1, 2, 3)), jnp.zeros((3, 4))
    with pytest.raises(AssertionError):
        fused_token_logps(hidden, unembedding, jnp.zeros((1, 2)), chunk_size=2)


def test_fused_token_logps_takes_one_vector_a_token():
    tokens = jnp.zeros((1, 2), int)
    with pytest.raises(AssertionError):
        fused_token_logps(jnp.zeros((1, 2, 3, 5)), jnp.zeros((3, 4)), tokens, chunk_size=2)


def test_greedy_baseline_takes_a_score_a_response():
    """With an axis more, a greedy score would be taken from another response's group."""
    scores = jnp.zeros((2, 3, 4))
    with pytest.raises(AssertionError):
        greedy_baseline_advantages(scores, scores[:, 0], scores == 0)


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


def test_equal_values_on_all_devices_are_whitened_to_exactly_0():
    """The lowest value of all is taken off first, also where a device has none of its own."""
    values = jnp.asarray([0.1, 0.7, 1e6 / 3])[:, None]
    for value in values:
        x, mask = jnp.broadcast_to(value, (8, 1)), (jnp.arange(8) < 7)[:, None]
        whitened = jax.pmap(functools.partial(whiten, axis_name="i"), axis_name="i")(x, mask)
        np.testing.assert_array_equal(whitened, np.zeros((8, 1)))


def test_one_score_moves_the_running_baseline():
    """By hand: 2 + (1 - 0.75)(6 - 2) = 3."""
    mask = jnp.asarray([True, False])
    moved = running_baseline(jnp.asarray(2.0), jnp.asarray([6.0, 9.0]), mask, decay=0.75)
    assert float(moved) == 3


def test_variance_with_less_than_one_degree_of_freedom():
    """By hand, weights of 3/4: mean 1, squares 3/4 + 3/4 = 3/2, freedom 3/2 - 1, variance 3."""
    variance = masked_variance(jnp.asarray([0.0, 2.0]), jnp.asarray([0.75, 0.75]), ddof=1)
    assert float(variance) == 3


@pytest.mark.parametrize(("chunk_size", "steps"), [(1, 1), (4, 1), (7, 1), (8, 2), (100, 6)])
def test_chunks_are_no_larger_than_asked_for(chunk_size, steps):
    """Whole time steps of four rows: one at least, and as many as fit."""
    assert _time_chunks(jnp.zeros((4, 6)), chunk_size).shape == (6 // steps, 4, steps)


def test_vespo_takes_an_advantage_of_0_for_a_good_one():
    """At k = 1, rate 0 the weight is the ratio, at k = 0, rate 0 it is 1."""
    logps, mask = jnp.asarray([[0.5], [0.5]]), jnp.ones((2, 1), bool)
    advantages = jnp.asarray([0.0, -1.0])
    weights = vespo_weights(
        logps, 0 * logps, mask, advantages, positive=(1.0, 0.0), negative=(0.0, 0.0)
    )
    np.testing.assert_allclose(weights, [np.exp(0.5), 1.0], rtol=1e-6)


def test_chunks_of_a_single_row():
    """Three and three steps of at most four."""
    assert _time_chunks(jnp.zeros((1, 6)), 4).shape == (2, 1, 3)


def test_wpo_subtracts_in_float32():
    """By hand, numbers that bfloat16 holds but whose difference it does not: 1 - 2^-9."""
    logp, collision = (jnp.asarray([[x]], jnp.bfloat16) for x in (-(2.0**-9), -1.0))
    weights = wpo_weights(logp, jnp.ones((1, 1), bool), collision)
    np.testing.assert_allclose(weights, [np.exp(1 - 2.0**-9)], rtol=1e-6)


def test_overlong_penalties_of_unsigned_lengths():
    """Too long by two of four tokens: -1/2, not what unsigned numbers below 0 wrap around to."""
    assert overlong_penalties(jnp.asarray([8], jnp.uint32), longest=10, cache=4).tolist() == [-0.5]


def test_wide_means_the_wider_of_two(x64):
    """Beside float64, float32 logits are worth all their digits: nothing is rounded in between."""
    narrow, wide = np.asarray([0.1, 2.3, -1.7], np.float32), np.asarray([1.0, 0.3, -2.9])
    p, q = (np.exp(z) / np.exp(z).sum() for z in (narrow.astype(float), wide))
    middle = 0.25 * q + 0.75 * p  # q is the teacher
    jsd = 0.25 * q @ np.log(q / middle) + 0.75 * p @ np.log(p / middle)
    mixed = 0.25 * np.log(q) + 0.75 * np.log(p)
    logits = jnp.asarray(narrow), jnp.asarray(wide)
    found = generalised_jsd_loss(*logits, mixture=0.25), mixture_logits(*logits, mixture=0.25)
    np.testing.assert_allclose(exact_kl(*logits), p @ np.log(p / q), rtol=1e-13)
    np.testing.assert_allclose(found[0], jsd, rtol=1e-13)
    np.testing.assert_allclose(found[1], mixed, rtol=1e-13)


def test_kl_of_two_certain_distributions_that_disagree():
    """sum p d: each is sure up to e^-69, the one of what the other forbids."""
    logits = jnp.asarray([0.0, -69.0])
    np.testing.assert_allclose(exact_kl(logits, logits[::-1]), 69.0, rtol=1e-6)


def test_temperature_of_bfloat16_logits():
    """By hand, logits that bfloat16 holds but whose difference it does not: 1 + 2^-9."""
    logits = jnp.asarray([1.0, -(2.0**-9)], jnp.bfloat16)
    np.testing.assert_array_equal(tempered(logits, 0.5), [0.0, -2.0 - 2.0**-8])


def test_gradient_of_tempered_logits():
    """1 / T each: the largest one is subtracted as a constant."""
    slopes = jax.jacobian(functools.partial(tempered, temperature=0.5))(jnp.asarray([1.0, 3.0]))
    np.testing.assert_array_equal(slopes, [[2.0, 0.0], [0.0, 2.0]])


@pytest.mark.parametrize("shape", [(3,), (2,) * 8])
def test_shift_right_takes_an_array_with_time(shape):
    with pytest.raises(AssertionError):
        shift_right(jnp.zeros(shape))


def test_token_logps_takes_tokens_with_time():
    with pytest.raises(AssertionError):
        token_logps(jnp.zeros((1, 2, 3)), jnp.zeros(2, int))


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


def test_overlong_penalties_from_the_last_token_and_from_the_first():
    lengths = jnp.asarray([0, 1, 3, 4])
    assert overlong_penalties(lengths, longest=4, cache=1).tolist() == [0, 0, 0, -1]
    assert overlong_penalties(lengths, longest=4, cache=4).tolist() == [0, -0.25, -0.75, -1]


def test_vtrace_is_constant_in_the_values_of_final_observations():
    """Targets and advantages are data, also where an episode is cut and bootstraps."""

    def total(final_values):
        ends = {"truncations": jnp.asarray([[False, True]]), "final_values": final_values}
        zeros, mask = jnp.zeros((1, 2)), jnp.ones((1, 2), bool)
        return sum(jnp.sum(x) for x in vtrace(zeros, zeros, zeros, mask, gamma=0.5, **ends))

    final_values = jnp.asarray([[0.0, 8.0]])
    assert float(total(final_values)) == 2 * (4 + 2)  # by hand: 8 gamma, then half of that
    np.testing.assert_array_equal(jax.grad(total)(final_values), [[0.0, 0.0]])


def test_diagnostics_beside_a_gradient_on_all_devices():
    """The largest ratio of all devices has no derivative; as data it needs none."""
    mask = jnp.ones(2, bool)

    def loss(logps):
        return jnp.sum(logps), ratio_diagnostics(logps, 0 * logps, mask, cap=2.0, axis_name="i")

    logps = jnp.log(jnp.asarray([[1.0, 2.0], [3.0, 4.0]]))
    gradients, found = jax.vmap(jax.grad(loss, has_aux=True), axis_name="i")(logps)
    np.testing.assert_array_equal(gradients, np.ones((2, 2)))
    np.testing.assert_allclose(found["ratio/max"], [4.0, 4.0], rtol=1e-6)


def test_masked_steps_have_no_part_in_gradients_of_diagnostics():
    """k3 = exp(d) - 1 - d at d = log 2 has the slope 1, its mean over two steps 1/2."""

    def k3(logps):
        zeros, mask = jnp.zeros(3), jnp.asarray([True, True, False])
        return ratio_diagnostics(logps, zeros, mask, cap=2.0)["ratio/k3"]

    gradient = jax.grad(k3)(jnp.asarray([0.0, np.log(2), jnp.nan]))
    np.testing.assert_allclose(gradient, [0.0, 0.5, 0.0], rtol=1e-6)


def test_one_sample_is_one_sample_whatever_its_weight():
    mask = jnp.asarray([True, False])
    share, slope = jax.value_and_grad(effective_sample_size)(jnp.asarray([0.3, 5.0]), mask)
    assert float(share) == 1
    np.testing.assert_array_equal(slope, [0.0, 0.0])


def test_rows_are_on_policy_by_their_mean_drift():
    """By hand, nats a token 0.9, 1.2 and (0.3 + 1.5) / 2 = 0.9; masked tokens are not looked at."""
    logps = -jnp.asarray([[0.9, jnp.nan], [1.2, jnp.nan], [0.3, 1.5]])
    mask = jnp.asarray([[True, False], [True, False], [True, True]])
    bad = -jnp.ones(3)
    kept = on_policy_rows(logps, jnp.zeros((3, 2)), mask, bad, threshold=1.0)
    assert kept.tolist() == [True, False, True]


def test_rows_are_on_policy_in_float32():
    """By hand, numbers that bfloat16 holds but whose difference it does not: 1 + 2^-9."""
    logp, behaviour = (jnp.asarray([[x]], jnp.bfloat16) for x in (-1.0, 2.0**-9))
    mask, bad = jnp.ones((1, 1), bool), -jnp.ones(1)
    assert on_policy_rows(logp, behaviour, mask, bad, threshold=1.0).tolist() == [False]


def test_quantiles_of_entropies_in_float32():
    """Between two neighbours of bfloat16 there is no number for it to be."""
    entropies = jnp.asarray([[1.0, 1.0 + 2.0**-7]], jnp.bfloat16)
    kept = top_entropy_mask(entropies, jnp.ones((1, 2), bool), share=0.5)
    assert kept.tolist() == [[False, True]]


def test_sapo_of_unsigned_advantages():
    """2 sigmoid(0) 4 / 2 of the wrong sign, had -2 wrapped around."""
    zero, two = jnp.zeros(1), jnp.asarray([2], jnp.uint32)
    assert sapo_loss(zero, zero, two, positive_temperature=2.0).tolist() == [-2.0]


@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_on_the_border_of_the_clip_nothing_is_clipped(advantage):
    """The loss bends there and is flat beyond; ratios as they come out of float32."""
    logps, zeros = jnp.asarray([-0.5, 0.5, 2.0]), jnp.zeros(3)
    lowest, highest, cap = (float(ratio) for ratio in probability_ratios(logps, zeros))
    bounds = {"clip_range": (1 - lowest, highest - 1), "dual_clip": cap}
    clipped = ppo_policy_clipped(logps, zeros, jnp.full(3, advantage), **bounds)
    assert clipped.tolist() == [False, False, advantage > 0]


@pytest.mark.parametrize("function", [whiten, functools.partial(masked_variance, ddof=1)])
def test_a_column_is_not_taken_for_a_matrix(function):
    """Before a mask of three columns it would be repeated three times."""
    with pytest.raises(AssertionError):
        function(jnp.ones((2, 1)), jnp.ones((2, 3), bool))
