"""Returns and V-trace: by hand, against explicit sums, and how they are related."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from jax.test_util import check_grads

from jaxalign import discounted_returns, gae, lambda_returns, n_step_returns, vtrace
from tests.cases.advantages.returns import CASES
from tests.checks.of_cases import checks_of
from tests.episodes import draw
from tests.oracles import returns as oracle

TestCases = checks_of(CASES)


CLOSE = {"rtol": 1e-10, "atol": 1e-10}


def complete(ends, mask):
    """What the oracle is given where we are given None."""
    nowhere, zeros = np.zeros(mask.shape, bool), np.zeros(mask.shape)
    default = {
        "terminations": nowhere,
        "truncations": nowhere,
        "final_values": zeros,
        "bootstrap_values": zeros[:, 0],
    }
    return tuple((default | ends).values())


def off_policy(**settings):
    """V-trace as a function of rewards, values and mask, with log-ratios drawn from them."""

    def fn(rewards, values, mask, **ends):
        log_ratios = jnp.where(mask, jnp.sin(9 * rewards), jnp.nan)
        return jnp.stack(vtrace(log_ratios, rewards, values, mask, **settings, **ends))

    return fn


ESTIMATORS = {  # compiled; of rewards, values, mask and ends
    "discounted": jax.jit(lambda r, v, m, **ends: discounted_returns(r, m, gamma=0.9, **ends)),
    "lambda": jax.jit(partial(lambda_returns, gamma=0.9, trace_lambda=0.8)),
    "one step": jax.jit(partial(n_step_returns, gamma=0.9, steps=1)),
    "three steps": jax.jit(partial(n_step_returns, gamma=0.9, steps=3)),
    "vtrace": jax.jit(off_policy(gamma=0.9, trace_lambda=0.8, rho_clip=1.2, c_clip=0.9)),
}


each_estimator = pytest.mark.parametrize("fn", ESTIMATORS.values(), ids=ESTIMATORS)


def test_returns_by_hand():
    # gamma 1/2; rewards 1, 2, 4; values 8, 16, 32; V = 64 after the end
    rewards, values = jnp.array([[1.0, 2.0, 4.0]]), jnp.array([[8.0, 16.0, 32.0]])
    mask, last = jnp.ones((1, 3), bool), jnp.array([64.0])
    everything = {"gamma": 0.5, "bootstrap_values": last}
    # G_2 = 4 + 32, G_1 = 2 + 18, G_0 = 1 + 10
    assert discounted_returns(rewards, mask, **everything).tolist() == [[11, 20, 36]]
    # n = 2: 1 + 2/2 + 32/4, 2 + 4/2 + 64/4, 4 + 64/2
    two = n_step_returns(rewards, values, mask, steps=2, **everything)
    assert two.tolist() == [[10, 20, 36]]
    # lambda 1/2: G_2 = 36, G_1 = 2 + (32 + 36) / 4 = 19, G_0 = 1 + (16 + 19) / 4
    mixed = lambda_returns(rewards, values, mask, trace_lambda=0.5, **everything)
    assert mixed.tolist() == [[9.75, 19, 36]]


def test_ends_by_hand():
    """One step of reward 1: terminal, cut before 10, before the 20 after the rollout, and both."""
    one, flags = jnp.ones((4, 1)), np.eye(4, dtype=bool)
    ends = {
        "terminations": flags[:, [0]] | flags[:, [3]],
        "truncations": flags[:, [1]] | flags[:, [3]],
        "final_values": 10 * one,
        "bootstrap_values": 20 * one[:, 0],
    }
    expected = [1, 6, 11, 1]  # gamma 1/2
    mask, settings = one > 0, {"gamma": 0.5, **ends}
    assert discounted_returns(one, mask, **settings)[:, 0].tolist() == expected
    assert n_step_returns(one, 0 * one, mask, steps=3, **settings)[:, 0].tolist() == expected
    assert vtrace(0 * one, one, 0 * one, mask, **settings)[1][:, 0].tolist() == expected


@pytest.mark.parametrize("missing", ["nothing", "terminations", "truncations", "bootstrap_values"])
def test_against_explicit_sums(x64, missing):
    (rewards, values, mask), ends, log_ratios = draw(0)
    ends.pop(missing, None)
    theirs = complete(ends, mask)

    @jax.jit
    def ours(rewards, values, mask, ends):
        steps = (rewards, values, mask)
        n_steps = [n_step_returns(*steps, gamma=0.9, steps=n, **ends) for n in (1, 2, 4, 50)]
        settings = {"gamma": 0.95, "trace_lambda": 0.7, "rho_clip": 1.5, "c_clip": 0.8}
        return [
            discounted_returns(rewards, mask, gamma=0.9, **ends),
            lambda_returns(*steps, gamma=0.9, trace_lambda=0.8, **ends),
            *n_steps,
            *vtrace(log_ratios, *steps, **settings, **ends),
        ]

    expected = [
        oracle.discounted_returns(rewards, mask, theirs, 0.9),
        oracle.lambda_returns(rewards, values, mask, theirs, 0.9, 0.8),
        *(oracle.n_step_returns(rewards, values, mask, theirs, 0.9, n) for n in (1, 2, 4, 50)),
        *oracle.vtrace(log_ratios, rewards, values, mask, theirs, 0.95, 0.7, 1.5, 0.8),
    ]
    for a, b in zip(ours(rewards, values, mask, ends), expected, strict=True):
        np.testing.assert_allclose(a, b, **CLOSE)
        assert not np.asarray(a)[~mask].any()


# --- Theorems --------------------------------------------------------------------------------
def test_lambda_zero_is_one_step_and_lambda_one_is_monte_carlo(x64):
    steps, ends, _ = draw(1)

    @jax.jit
    def returns(steps, ends):
        mixed = [
            lambda_returns(*steps, gamma=0.9, trace_lambda=trace_lambda, **ends)
            for trace_lambda in (0.0, 1.0)
        ]
        return mixed, discounted_returns(steps[0], steps[2], gamma=0.9, **ends)

    mixed, everything = returns(steps, ends)
    one = ESTIMATORS["one step"](*steps, **ends)
    np.testing.assert_allclose(mixed[0], one, **CLOSE)
    np.testing.assert_allclose(mixed[1], everything, **CLOSE)


def test_advantages_and_values_make_the_lambda_return(x64):
    (rewards, values, mask), ends, _ = draw(2)
    advantages, _ = gae(rewards, values, mask, gamma=0.9, gae_lambda=0.7, **ends)
    returns = lambda_returns(rewards, values, mask, gamma=0.9, trace_lambda=0.7, **ends)
    np.testing.assert_allclose(advantages + np.where(mask, values, 0), returns, **CLOSE)


def test_the_true_values_are_a_fixed_point(x64):
    """With the true value of every step, each estimator returns it: a chain of known rewards."""
    rewards = np.array([[3.0, -1.0, 4.0, 1.0]])
    mask = np.ones((1, 4), bool)
    values = np.asarray(discounted_returns(rewards, mask, gamma=0.9))
    for fn in ESTIMATORS.values():
        *_, targets = np.asarray(fn(rewards, values, mask)).reshape(-1, 1, 4)
        np.testing.assert_allclose(targets, values, **CLOSE)


# --- Invariances -----------------------------------------------------------------------------
@each_estimator
def test_what_is_masked_never_counts(fn):
    (rewards, values, mask), ends, _ = draw(5)
    clean = fn(rewards, values, mask, **ends)
    rewards, values = (np.where(mask, x, np.nan) for x in (rewards, values))
    cut = mask & ends["truncations"]
    ends["final_values"] = np.where(cut, ends["final_values"], np.nan)
    np.testing.assert_array_equal(fn(rewards, values, mask, **ends), clean)


@each_estimator
def test_masked_steps_in_between_change_nothing(fn):
    (rewards, values, mask), ends, _ = draw(6)
    expected = np.asarray(fn(rewards, values, mask, **ends))
    places = np.array([1, 2, 5, 6, 7, 9, 12, 13, 14])

    def spread(x):
        if np.ndim(x) == 1:
            return x
        wide = np.ones((len(x), 16), x.dtype)
        wide[:, places] = x
        return wide

    wide_mask = np.zeros((len(mask), 16), bool)
    wide_mask[:, places] = mask
    wide_ends = {name: spread(x) for name, x in ends.items()}
    found = fn(spread(rewards), spread(values), wide_mask, **wide_ends)
    np.testing.assert_allclose(np.asarray(found)[..., places], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@each_estimator
def test_inside_shard_map(fn):
    steps, ends, _ = draw(7, rows=8)
    mesh = jax.make_mesh((8,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
    stacked = P(None, "i") if fn is ESTIMATORS["vtrace"] else P("i")
    shards = jax.shard_map(
        lambda steps, ends: fn(*steps, **ends), mesh=mesh, in_specs=P("i"), out_specs=stacked
    )
    found = jax.jit(shards)(steps, ends)
    np.testing.assert_allclose(found, fn(*steps, **ends), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(ESTIMATORS) - {"vtrace"}))
def test_gradients(x64, name):
    (rewards, values, mask), ends, _ = draw(8, rows=3, steps=4)
    fn = jax.jit(lambda r, v: ESTIMATORS[name](r, v, mask, **ends))
    check_grads(fn, (rewards, values), order=2, modes=["rev"])


@each_estimator
def test_bfloat16_is_computed_in_float32(fn):
    steps, _, _ = draw(10)
    narrow = [jnp.asarray(x, jnp.bfloat16) for x in steps[:2]]
    wide = [x.astype(jnp.float32) for x in narrow]
    ours = fn(*narrow, steps[2])
    assert ours.dtype == jnp.float32
    if fn is not ESTIMATORS["vtrace"]:  # whose ratios the test itself makes from the rewards
        np.testing.assert_array_equal(ours, fn(*wide, steps[2]))


def test_extremes_are_finite():
    rewards, mask = jnp.array([[1e4, -1e4, 1e4]]), jnp.array([[True, True, False]])
    log_ratios = jnp.array([[1e4, -1e4, jnp.nan]])
    uncapped = {"gamma": 1.0, "rho_clip": jnp.inf, "c_clip": 1.0}
    for found in vtrace(log_ratios, rewards, -rewards, mask, **uncapped):
        assert jnp.isfinite(found).all()


def test_what_does_not_fit_raises():
    x = jnp.zeros((2, 3))
    for fn in ESTIMATORS.values():
        with pytest.raises(AssertionError):
            fn(x, x, x[:, :1] == 0)
        with pytest.raises(AssertionError):
            fn(x, x, x == 0, bootstrap_values=x)
        with pytest.raises(ValueError, match="truncations need final_values"):
            fn(x, x, x == 0, truncations=x == 0)
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        n_step_returns(x, x, x == 0, gamma=1.0, steps=0)
