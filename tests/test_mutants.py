"""What `python -m benchmarks.mutation` found no test to notice, function by function."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxalign import (
    centred_advantages,
    constant_length,
    fused_token_logps,
    greedy_baseline_advantages,
    masked_variance,
    overlong_penalties,
    running_baseline,
    token_logps,
    vespo_weights,
    weighted_scores,
    whiten,
    wpo_weights,
)
from jaxalign.logprobs import _time_chunks, tempered
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
