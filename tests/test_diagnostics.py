"""Importance ratios: by hand, against loops, without overflow, the same on eight devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from jaxalign import (
    effective_sample_size,
    exact_kl,
    ratio_diagnostics,
)
from tests.cases.diagnostics import CASES
from tests.checks.of_cases import checks_of

TestCases = checks_of(CASES)


NAMES = (
    "mean",
    "max",
    "capped_mean",
    "capped_max",
    "capped_share",
    "effective_samples",
    "k1",
    "k3",
)


def draw(seed, shape=(8, 6), scale=1.0):
    rng = np.random.default_rng(seed)
    logps, behaviour = -2 + scale * rng.normal(size=(2, *shape))
    return logps, behaviour, rng.random(shape) < 0.7


def by_loops(logps, behaviour, mask, cap):
    """Written from the definitions; nothing here overflows for the scales it is given."""
    d = np.array([logps[at] - behaviour[at] for at in np.ndindex(mask.shape) if mask[at]])
    r = np.exp(d)
    return {
        "ratio/mean": r.sum() / r.size,
        "ratio/max": r.max(),
        "ratio/capped_mean": sum(min(x, cap) for x in r) / r.size,
        "ratio/capped_max": min(r.max(), cap),
        "ratio/capped_share": sum(x > cap for x in r) / r.size,
        "ratio/effective_samples": r.sum() ** 2 / (r**2).sum() / r.size,
        "ratio/k1": -d.sum() / r.size,
        "ratio/k3": (r - 1 - d).sum() / r.size,
    }


def test_by_hand():
    # ratios 1/2, 1, 2, 4: sum 7.5, squares 21.25; cap 2: 1/2 + 1 + 2 + 2 = 5.5
    # log2 ratios -1 + 0 + 1 + 2 = 2: k1 = -log(2) / 2, k3 = 7.5 / 4 - 1 - log(2) / 2
    ratios = jnp.array([0.5, 1.0, 2.0, 4.0, jnp.nan])
    mask, none = jnp.array([True] * 4 + [False]), jnp.zeros(5)
    found = ratio_diagnostics(jnp.log(ratios), none, mask, cap=2.0)
    half = np.log(2) / 2
    expected = [1.875, 4, 1.375, 2, 0.25, 7.5**2 / (4 * 21.25), -half, 0.875 - half]
    assert set(found) == {f"ratio/{name}" for name in NAMES}
    for name, value in zip(NAMES, expected, strict=True):
        assert float(found[f"ratio/{name}"]) == pytest.approx(value, rel=1e-6), name


@pytest.mark.parametrize("cap", [0.5, 1.5, 1e3])
def test_against_loops(x64, cap):
    logps, behaviour, mask = draw(0)
    found = jax.jit(lambda *x: ratio_diagnostics(*x, cap=cap))(logps, behaviour, mask)
    for name, expected in by_loops(logps, behaviour, mask, cap).items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-10, atol=1e-12, err_msg=name)


def test_on_policy(x64):
    logps, _, mask = draw(1)
    found = ratio_diagnostics(logps, logps, mask, cap=2.0)
    ones = {"mean", "max", "capped_mean", "capped_max", "effective_samples"}
    assert found == {f"ratio/{name}": float(name in ones) for name in NAMES}


@pytest.mark.slow
def test_expectations_under_the_behaviour_policy(x64):
    """Summed over every action: E[r] = 1, and k1 and k3 are both KL(behaviour, policy)."""
    logits = np.random.default_rng(2).normal(size=(2, 5))
    policy, behaviour = np.asarray(jax.nn.log_softmax(logits))
    weights = np.exp(behaviour)

    def expected(name):
        def one(a, b):
            return ratio_diagnostics(a[None], b[None], np.ones(1, bool), cap=2.0)[f"ratio/{name}"]

        return float(weights @ jax.vmap(one)(policy, behaviour))

    assert expected("mean") == pytest.approx(1, abs=1e-12)
    kl = float(exact_kl(logits[1], logits[0]))
    assert expected("k1") == pytest.approx(kl, abs=1e-12)
    assert expected("k3") == pytest.approx(kl, abs=1e-12)


def test_effective_samples():
    """k equal weights among n count as k; a scale of all weights changes nothing, however large."""
    log_weights = jnp.array([0.0, 0.0, 0.0, -1e4])
    mask = jnp.ones(4, bool)
    for shift in (0.0, 1e4, -1e4):
        assert float(effective_sample_size(log_weights + shift, mask)) == 0.75
    assert float(effective_sample_size(log_weights, mask & False)) == 0
    assert float(effective_sample_size(log_weights, mask.at[1:3].set(False))) == 0.5


def test_the_share_is_between_one_sample_and_all(x64):
    logps, behaviour, mask = draw(3, scale=3.0)
    share = float(effective_sample_size(logps - behaviour, mask))
    assert 1 / mask.sum() < share < 1


@pytest.mark.parametrize("size", [1e4, -1e4])
def test_extremes_are_finite(size):
    logps, mask = jnp.array([size, 0.0, jnp.nan]), jnp.array([True, True, False])
    found = ratio_diagnostics(logps, jnp.zeros(3), mask, cap=2.0)
    assert all(jnp.isfinite(x) for x in found.values())


def test_nothing_is_nothing():
    none = jnp.zeros((2, 3))
    found = ratio_diagnostics(none, none, none > 0, cap=2.0)
    assert not any(found.values())


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["pmap", "shard_map"])
def test_eight_devices_as_one(layout):
    """Device 0 has everything, device 7 nothing; the largest ratio is on device 3."""
    logps, behaviour, _ = (np.asarray(x, np.float32) for x in draw(4, (8, 6)))
    mask = np.arange(8)[:, None] + np.arange(6) < 7
    logps[3, 0] = 4.0

    def diagnose(logps, behaviour, mask):
        return ratio_diagnostics(logps, behaviour, mask, cap=1.5, axis_name="i")

    if layout == "pmap":
        mapped = jax.pmap(diagnose, axis_name="i")
        found = jax.tree.map(lambda x: x[0], mapped(logps, behaviour, mask))
    else:
        mesh = jax.make_mesh((8,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
        mapped = jax.shard_map(diagnose, mesh=mesh, in_specs=P("i"), out_specs=P())
        found = jax.jit(mapped)(logps, behaviour, mask)
    expected = ratio_diagnostics(logps, behaviour, mask, cap=1.5)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, err_msg=name)


def test_shapes_must_agree():
    with pytest.raises(AssertionError):
        effective_sample_size(jnp.zeros(3), jnp.ones(1, bool))
    with pytest.raises(AssertionError):
        ratio_diagnostics(jnp.zeros(3), jnp.zeros(1), jnp.ones(3, bool), cap=2.0)


@pytest.mark.slow
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
