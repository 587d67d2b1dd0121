"""Masked statistics: by hand, against exact summation, and the same on one device as on eight."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from jax.test_util import check_grads

import jaxalign
from jaxalign import (
    masked_mean,
    masked_sum,
)
from tests.cases.numerics.masking import CASES
from tests.checks.of_cases import checks_of
from tests.oracles import statistics as oracle

TestCases = checks_of(CASES)
masked_variance = jax.jit(jaxalign.masked_variance, static_argnames=("ddof", "axis_name"))
whiten = jax.jit(jaxalign.whiten, static_argnames=("shift_mean", "axis_name"))


def draw(seed, shape=(8, 5), scale=3.0, offset=10.0):
    rng = np.random.default_rng(seed)
    return rng.normal(offset, scale, shape), rng.random(shape) < 0.6


MASKS = {
    "random": lambda mask: mask,
    "none": np.zeros_like,
    "all": np.ones_like,
    "one": lambda mask: np.eye(*mask.shape, dtype=bool) & (np.arange(mask.shape[1]) == 2),
}


def test_by_hand():
    x, mask = jnp.array([[1.0, 2.0], [6.0, 100.0]]), jnp.array([[True, True], [True, False]])
    assert float(masked_sum(x, mask)) == 9
    assert masked_sum(x, mask, axis=1).tolist() == [3, 6]
    assert float(masked_mean(x, mask)) == 3  # 9 / 3
    # deviations -2, -1, 3: squares 4 + 1 + 9 = 14
    assert float(masked_variance(x, mask, ddof=0)) == pytest.approx(14 / 3)
    assert float(masked_variance(x, mask, ddof=1)) == 7


def test_weights_count_fractions():
    # (1 * 2 + 0.5 * 8) / 1.5 = 4
    assert float(masked_mean(jnp.array([2.0, 8.0]), jnp.array([1.0, 0.5]))) == 4


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_against_exact_sums(x64, kind, offset):
    x, mask = draw(0, offset=offset)
    mask = MASKS[kind](mask)
    close = {"rtol": 1e-10, "atol": 1e-10}
    np.testing.assert_allclose(masked_mean(x, mask), oracle.masked_mean(x, mask), **close)
    for ddof in (0, 1):
        expected = oracle.masked_variance(x, mask, ddof)
        np.testing.assert_allclose(masked_variance(x, mask, ddof=ddof), expected, **close)
    for shift in (True, False):
        expected = oracle.whiten(x, mask, shift)
        np.testing.assert_allclose(whiten(x, mask, shift_mean=shift), expected, **close)


def test_two_passes_survive_a_large_mean():
    """E[x^2] - E[x]^2 would lose all digits here: the squares need 27 bits, float32 has 24."""
    x = jnp.array([10000.0, 10001.0, 10002.0], jnp.float32)
    assert float(masked_variance(x, jnp.ones(3, bool), ddof=1)) == 1


@pytest.mark.parametrize("value", [0.1, 1e-3, 12345.678])
def test_equal_entries_have_no_variance(value):
    """The mean of equal numbers may round; whitening must not blow that up to one."""
    x, mask = jnp.full((7, 3), value), jnp.ones((7, 3), bool)
    assert float(masked_variance(x, mask, ddof=0)) == 0
    assert not whiten(x, mask).any()
    np.testing.assert_array_equal(whiten(x, mask, shift_mean=False), x)


def test_entries_that_differ_by_rounding_have_no_variance():
    """0.1 + 0.6 is 0.70000005 in float32; scaled to unit variance that would be a signal."""
    x = jnp.array([np.float32(0.1) + np.float32(0.6), np.float32(0.7), jnp.nan])
    mask = jnp.array([True, True, False])
    assert x[0] != x[1]
    assert float(masked_variance(x, mask, ddof=1)) == 0
    assert not whiten(x, mask).any()
    slope = jax.jacobian(lambda x: whiten(x, mask))(x)  # that of x - mean
    np.testing.assert_allclose(slope, [[0.5, -0.5, 0], [-0.5, 0.5, 0], [0, 0, 0]])


def test_close_entries_keep_their_variance():
    x, mask = jnp.array([1.0, 1.00001]), jnp.ones(2, bool)
    np.testing.assert_allclose(whiten(x, mask), [-1, 1], rtol=1e-6)
    np.testing.assert_allclose(whiten(1e6 + x.at[1].add(1), mask), [-1, 1], rtol=1e-6)


def test_what_is_masked_never_counts():
    x, mask = draw(1)
    poisoned = np.where(mask, x, np.nan)
    for fn in (masked_mean, whiten, lambda x, m: masked_variance(x, m, ddof=1)):
        np.testing.assert_array_equal(fn(poisoned, mask), fn(x, mask))
        grads = jax.grad(lambda x, fn=fn: fn(x, mask).sum())(jnp.asarray(poisoned, jnp.float32))
        assert jnp.isfinite(grads).all()
        assert not grads[~mask].any()


@pytest.mark.parametrize("kind", ["none", "one"])
def test_gradients_of_degenerate_masks_are_finite(kind):
    x, mask = draw(2)
    mask = MASKS[kind](mask)
    for fn in (masked_mean, whiten, lambda x, m: masked_variance(x, m, ddof=1)):
        value, grads = jax.value_and_grad(lambda x, fn=fn: fn(x, mask).sum())(jnp.asarray(x))
        assert jnp.isfinite(value) and jnp.isfinite(grads).all()


@pytest.mark.slow
def test_gradients(x64):
    x, mask = draw(3, (3, 4))
    for fn in (masked_mean, whiten, lambda x, m: masked_variance(x, m, ddof=1)):
        check_grads(jax.jit(lambda x, fn=fn: fn(x, mask)), (x,), order=2, modes=["rev"])


def test_integers_and_bfloat16_are_summed_in_float32():
    ones = jnp.ones(1000, jnp.bfloat16)  # bfloat16 cannot count beyond 256
    assert float(masked_sum(ones, jnp.ones(1000, bool))) == 1000
    assert float(masked_mean(jnp.array([0, 1]), jnp.ones(2, bool))) == 0.5


def test_shapes_must_agree():
    with pytest.raises(AssertionError):
        masked_mean(jnp.ones((2, 3)), jnp.ones((2, 1), bool))


def on_eight(fn):
    """The same function mapped over 8 devices by pmap and by shard_map."""
    mesh = jax.make_mesh((8,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
    shards = jax.jit(jax.shard_map(fn, mesh=mesh, in_specs=P("i"), out_specs=P("i")))

    def pmapped(*args):
        split = [np.reshape(a, (8, -1, *np.shape(a)[1:])) for a in args]
        out = jax.pmap(fn, axis_name="i")(*split)
        return jnp.reshape(out, (-1, *out.shape[2:]))

    return {"pmap": pmapped, "shard_map": shards}


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["pmap", "shard_map"])
def test_eight_devices_whiten_as_one(layout):
    """The masks are uneven: device 0 has everything, device 7 nothing."""
    x, _ = draw(4, (16, 6))
    mask = np.arange(16)[:, None] + np.arange(6) < 10
    x = x.astype(np.float32)
    for shift in (True, False):

        def shard(x, mask, shift=shift):
            return whiten(x, mask, shift_mean=shift, axis_name="i")

        # 96 terms, each sum rounded at most once per term
        np.testing.assert_allclose(
            on_eight(shard)[layout](x, mask), whiten(x, mask, shift_mean=shift), rtol=0, atol=2e-5
        )


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["pmap", "shard_map"])
def test_eight_devices_have_one_mean_and_variance(layout):
    x, _ = draw(5, (8, 6))
    x, mask = x.astype(np.float32), np.arange(8)[:, None] * np.ones(6, int) < np.arange(6)

    def statistics(x, mask):
        mean = masked_mean(x, mask, axis_name="i")
        return jnp.stack([mean, masked_variance(x, mask, ddof=1, axis_name="i")])[None]

    expected = [masked_mean(x, mask), masked_variance(x, mask, ddof=1)]
    for row in on_eight(statistics)[layout](x, mask):
        np.testing.assert_allclose(row, expected, rtol=1e-5)


@pytest.mark.parametrize("weight", [0.25, 0.5])
def test_weights_of_no_more_than_ddof_have_no_variance(weight):
    x, weights = jnp.asarray([0.0, 2.0]), jnp.full(2, weight)
    assert float(masked_variance(x, weights, ddof=1)) == 0


def test_gradient_of_a_variance_over_devices():
    """By hand: 2 (x - mean) / 2 of this variance, and as much of that on the other device."""
    x, mask = jnp.asarray([[1.0], [3.0]]), jnp.ones((2, 1), bool)
    variance = functools.partial(masked_variance, ddof=0, axis_name="i")
    gradients = jax.jit(jax.vmap(jax.grad(variance), axis_name="i"))(x, mask)
    np.testing.assert_array_equal(gradients, [[-2.0], [2.0]])


def test_whitening_ignores_scale_and_shift(x64):
    x = np.random.default_rng(7).normal(size=(4, 9))
    mask = np.random.default_rng(8).random((4, 9)) < 0.6
    np.testing.assert_allclose(whiten(3 * x + 100, mask), whiten(x, mask), atol=1e-10)
    np.testing.assert_allclose(whiten(whiten(x, mask), mask), whiten(x, mask), atol=1e-12)


def test_equal_values_on_all_devices_are_whitened_to_exactly_0():
    """The lowest value of all is taken off first, also where a device has none of its own."""
    values = jnp.asarray([0.1, 0.7, 1e6 / 3])[:, None]
    for value in values:
        x, mask = jnp.broadcast_to(value, (8, 1)), (jnp.arange(8) < 7)[:, None]
        whitened = jax.pmap(functools.partial(whiten, axis_name="i"), axis_name="i")(x, mask)
        np.testing.assert_array_equal(whitened, np.zeros((8, 1)))


def test_variance_with_less_than_one_degree_of_freedom():
    """By hand, weights of 3/4: mean 1, squares 3/4 + 3/4 = 3/2, freedom 3/2 - 1, variance 3."""
    variance = masked_variance(jnp.asarray([0.0, 2.0]), jnp.asarray([0.75, 0.75]), ddof=1)
    assert float(variance) == 3


@pytest.mark.parametrize("function", [whiten, functools.partial(masked_variance, ddof=1)])
def test_a_column_is_not_taken_for_a_matrix(function):
    """Before a mask of three columns it would be repeated three times."""
    with pytest.raises(AssertionError):
        function(jnp.ones((2, 1)), jnp.ones((2, 3), bool))
