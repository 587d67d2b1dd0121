"""PPO's losses: by hand, against the equations, with gradients exactly 0 where the loss is flat."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import jaxalign
from jaxalign import (
    action_logps,
    masked_mean,
    ppo_loss,
)
from tests.cases.losses.ppo import CASES
from tests.checks.of_cases import checks_of
from tests.oracles import ppo as oracle

TestCases = checks_of(CASES)
ppo_policy_loss = jax.jit(jaxalign.ppo_policy_loss, static_argnames=("clip_range", "dual_clip"))
ppo_policy_clipped = jax.jit(
    jaxalign.ppo_policy_clipped, static_argnames=("clip_range", "dual_clip")
)
ppo_value_loss = jax.jit(jaxalign.ppo_value_loss, static_argnames=("value_clip_range",))
ppo_value_clipped = jax.jit(jaxalign.ppo_value_clipped, static_argnames=("value_clip_range",))
probability_ratios = jax.jit(jaxalign.probability_ratios)


CLIPS = [(0.2, 0.2), (0.2, 0.28), (0.1, 0.5)]


def draw(seed, size=300):
    rng = np.random.default_rng(seed)
    logps, behaviour = -rng.exponential(1.0, (2, size))
    return logps, behaviour, rng.normal(size=size)


@pytest.mark.parametrize(
    "ratio, advantage, loss, slope",
    [
        (1.0, 2.0, -2.0, -2.0),  # the policy gradient: d loss / d logp = -A r
        (1.1, 2.0, -2.2, -2.2),
        (1.5, 2.0, -2.4, 0.0),  # above 1 + 0.2: no more gain
        (0.5, 2.0, -1.0, -1.0),  # too low though wanted: pulled back up
        (0.5, -2.0, 1.6, 0.0),  # below 1 - 0.2: no more gain
        (1.5, -2.0, 3.0, 3.0),  # too high though unwanted: pulled back down
        (1.5, 0.0, 0.0, 0.0),
    ],
)
def test_policy_loss_by_hand(ratio, advantage, loss, slope):
    def fn(logp):
        return ppo_policy_loss(logp, jnp.float32(-1.0), jnp.float32(advantage), clip_range=0.2)

    logp = jnp.float32(np.log(ratio) - 1.0)
    value, grad = jax.value_and_grad(fn)(logp)
    assert float(value) == pytest.approx(loss, rel=1e-6)
    assert float(grad) == pytest.approx(slope, rel=1e-6)
    clipped = ppo_policy_clipped(logp, jnp.float32(-1.0), jnp.float32(advantage), clip_range=0.2)
    assert bool(clipped) == (slope == 0 and advantage != 0)


@pytest.mark.parametrize("dual_clip", [None, 3.0, 1.6])
@pytest.mark.parametrize("clip_range", CLIPS)
def test_policy_loss_against_the_equation(x64, clip_range, dual_clip):
    logps, behaviour, advantages = draw(0)
    ours = ppo_policy_loss(logps, behaviour, advantages, clip_range=clip_range, dual_clip=dual_clip)
    expected = [
        oracle.policy_loss(*step, *clip_range, dual_clip)
        for step in zip(logps, behaviour, advantages, strict=True)
    ]
    np.testing.assert_allclose(ours, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dual_clip", [None, 3.0])
@pytest.mark.parametrize("clip_range", [0.2, (0.2, 0.28)])
def test_gradient_is_exactly_zero_where_clipped(clip_range, dual_clip):
    logps, behaviour, advantages = (x.astype(np.float32) for x in draw(1))
    settings = {"clip_range": clip_range, "dual_clip": dual_clip}
    grads = jax.grad(lambda x: ppo_policy_loss(x, behaviour, advantages, **settings).sum())(
        jnp.asarray(logps)
    )
    clipped = ppo_policy_clipped(logps, behaviour, advantages, **settings)
    np.testing.assert_array_equal(grads == 0, clipped)
    assert 0.2 < float(clipped.mean()) < 0.8
    ratios = probability_ratios(logps, behaviour)
    np.testing.assert_allclose(grads[~clipped], -(advantages * ratios)[~clipped], rtol=1e-6)


def test_dual_clip_by_hand():
    """Ratio 10 and A = -2: 20 without, capped at 3 * 2 with; A > 0 is not touched."""
    logps, behaviour = jnp.log(jnp.array([10.0, 10.0])), jnp.zeros(2)
    advantages = jnp.array([-2.0, 2.0])
    plain = ppo_policy_loss(logps, behaviour, advantages, clip_range=0.2)
    dual = ppo_policy_loss(logps, behaviour, advantages, clip_range=0.2, dual_clip=3.0)
    np.testing.assert_allclose(plain, [20.0, -2.4], rtol=1e-6)
    np.testing.assert_allclose(dual, [6.0, -2.4], rtol=1e-6)


def test_data_get_no_gradient():
    logps, behaviour, advantages = map(jnp.asarray, draw(2))

    def policy(behaviour, advantages):
        return ppo_policy_loss(logps, behaviour, advantages, clip_range=0.2).sum()

    def value(behaviour, returns):
        return ppo_value_loss(logps, behaviour, returns, value_clip_range=0.2).sum()

    for fn in (policy, value):
        grads = jax.grad(fn, argnums=(0, 1))(behaviour, advantages)
        assert not any(g.any() for g in grads)


@pytest.mark.parametrize("gap", [100.0, 1e4])
@pytest.mark.parametrize("advantage", [-1.0, 0.0, 1.0])
def test_extreme_ratios_are_finite(gap, advantage):
    """exp(1e4) is infinite, and 0 times infinity is not a number: neither may appear."""
    logps = jnp.array([-gap, 0.0])
    behaviour = jnp.array([0.0, -gap])
    advantages = jnp.full(2, advantage)

    def total(logps):
        return ppo_policy_loss(logps, behaviour, advantages, clip_range=0.2).sum()

    value, grads = jax.value_and_grad(total)(logps)
    assert jnp.isfinite(value) and jnp.isfinite(grads).all()
    if advantage < 0:
        assert float(grads[1]) > 1e19  # still pulled down, hard
    else:
        assert grads.tolist()[1] == 0


@pytest.mark.parametrize("clip", [None, 0.2, 1.0])
def test_value_loss_against_the_equation(x64, clip):
    rng = np.random.default_rng(3)
    values, behaviour, returns = rng.normal(size=(3, 200))
    ours = ppo_value_loss(values, behaviour, returns, value_clip_range=clip)
    expected = [
        oracle.value_loss(*step, clip) for step in zip(values, behaviour, returns, strict=True)
    ]
    np.testing.assert_allclose(ours, expected, rtol=1e-10, atol=1e-10)


def test_value_gradient_is_exactly_zero_where_clipped():
    rng = np.random.default_rng(4)
    values, behaviour, returns = rng.normal(size=(3, 200)).astype(np.float32)

    def total(values):
        return ppo_value_loss(values, behaviour, returns, value_clip_range=0.3).sum()

    grads = jax.grad(total)(jnp.asarray(values))
    clipped = ppo_value_clipped(values, behaviour, returns, value_clip_range=0.3)
    np.testing.assert_array_equal(grads == 0, clipped)
    assert 0.1 < float(clipped.mean()) < 0.9
    np.testing.assert_allclose(grads[~clipped], (values - returns)[~clipped], rtol=1e-6)


@pytest.mark.slow
def test_gradients(x64):
    logps, behaviour, advantages = draw(5, 20)
    dual = {"clip_range": (0.2, 0.3), "dual_clip": 2.0}

    @jax.jit
    def losses(x):
        return (
            ppo_policy_loss(x, behaviour, advantages, clip_range=0.2),
            ppo_policy_loss(x, behaviour, advantages, **dual),
            ppo_value_loss(x, behaviour, advantages, value_clip_range=0.3),
        )

    check_grads(losses, (logps,), order=2, modes=["rev"])


def test_whole_loss_by_hand():
    policy, value, entropy = jnp.array([1.0]), jnp.array([4.0]), jnp.array([2.0])
    loss = ppo_loss(policy, value, entropy, value_coef=0.5, entropy_coef=0.1)
    assert loss.tolist() == [pytest.approx(1 + 2 - 0.2)]


def test_an_empty_mask_gives_zero_loss_and_gradient():
    x = jnp.array([[-1e4, 1e4]])

    def total(logps):
        losses = ppo_policy_loss(logps, x, x, clip_range=0.2)
        return masked_mean(losses, jnp.zeros((1, 2), bool))

    value, grads = jax.value_and_grad(total)(jnp.zeros((1, 2)))
    assert float(value) == 0
    assert grads.tolist() == [[0, 0]]


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"clip_range": 0.0}, "clip_range must be above 0"),
        ({"clip_range": (0.2, -0.1)}, "clip_range must be above 0"),
        ({"clip_range": 0.2, "dual_clip": 1.1}, "dual_clip must be above 1"),
    ],
)
def test_bad_settings_raise(settings, message):
    x = jnp.zeros(2)
    with pytest.raises(ValueError, match=message):
        ppo_policy_loss(x, x, x, **settings)


def test_bad_value_clip_and_shapes_raise():
    x = jnp.zeros(2)
    with pytest.raises(ValueError, match="value_clip_range must be above 0"):
        ppo_value_loss(x, x, x, value_clip_range=0.0)
    with pytest.raises(AssertionError):
        ppo_policy_loss(x, x, jnp.zeros(()), clip_range=0.2)
    with pytest.raises(AssertionError):
        ppo_value_loss(x, x, jnp.zeros((2, 1)), value_clip_range=None)


class TestPolicyGradient:
    def test_at_ratio_one_ppo_is_the_policy_gradient(self, x64):
        rng = np.random.default_rng(5)
        logits, advantages = jnp.asarray(rng.normal(size=(10, 4))), rng.normal(size=10)
        actions = rng.integers(0, 4, 10)

        def ppo(logits):
            logps = action_logps(logits, actions)
            behaviour = jax.lax.stop_gradient(logps)
            return ppo_policy_loss(logps, behaviour, advantages, clip_range=0.2).sum()

        def reinforce(logits):
            return -jnp.sum(action_logps(logits, actions) * advantages)

        np.testing.assert_allclose(jax.grad(ppo)(logits), jax.grad(reinforce)(logits), atol=1e-14)

    def test_the_clipped_loss_is_never_below_the_unclipped_one(self):
        """It is a pessimistic bound on the surrogate."""
        rng = np.random.default_rng(6)
        logps, behaviour, advantages = rng.normal(size=(3, 500)).astype(np.float32)
        wide = ppo_policy_loss(logps, behaviour, advantages, clip_range=1e9)
        assert (ppo_policy_loss(logps, behaviour, advantages, clip_range=0.2) >= wide).all()

    def test_a_large_gain_is_never_taken_twice(self):
        """Past the clip range on the good side, going on changes nothing."""
        far = ppo_policy_loss(jnp.array([1.0]), jnp.zeros(1), jnp.ones(1), clip_range=0.2)
        farther = ppo_policy_loss(jnp.array([2.0]), jnp.zeros(1), jnp.ones(1), clip_range=0.2)
        np.testing.assert_array_equal(far, farther)


@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_on_the_border_of_the_clip_nothing_is_clipped(advantage):
    """The loss bends there and is flat beyond; ratios as they come out of float32."""
    logps, zeros = jnp.asarray([-0.5, 0.5, 2.0]), jnp.zeros(3)
    lowest, highest, cap = (float(ratio) for ratio in probability_ratios(logps, zeros))
    bounds = {"clip_range": (1 - lowest, highest - 1), "dual_clip": cap}
    clipped = ppo_policy_clipped(logps, zeros, jnp.full(3, advantage), **bounds)
    assert clipped.tolist() == [False, False, advantage > 0]
