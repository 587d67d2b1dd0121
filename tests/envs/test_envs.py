"""CartPole against gymnasium step for step; the digits bandit; the policy MLP."""

import dataclasses

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxalign.envs.cartpole import CARTPOLE, CartPole, CartPoleState
from jaxalign.envs.digits import DigitsBandit, split_digits
from jaxalign.models.mlp import PolicyMLP

KEY = jax.random.key(0)
STEP = jax.jit(CartPole().step)


def balance(physics):
    """Pushes towards where the pole leans and the cart drifts to: keeps it up for 500 steps."""
    return int(np.dot([0.1, 0.2, 1.0, 0.3], physics) > 0)


def gym_episode(seed, choose, max_steps=500):
    """One episode of gymnasium: physics before, action, physics after, reward and flags."""
    peer = gymnasium.make("CartPole-v1")
    peer.reset(seed=seed)
    for steps in range(max_steps):
        before = np.array(peer.unwrapped.state)
        action = choose(before)
        _, reward, terminated, truncated, _ = peer.step(action)
        yield steps, before, action, np.array(peer.unwrapped.state), reward, terminated, truncated
        if terminated or truncated:
            return


def check_episode(records, tolerance):
    """Every step of ours from gymnasium's own state; returns the flags of the last one."""
    for steps, before, action, after, reward, terminated, truncated in records:
        state = CartPoleState(physics=jnp.asarray(before), steps=jnp.int32(steps))
        state, observation, *outcome = STEP(state, jnp.int32(action), KEY)
        np.testing.assert_allclose(observation, after, rtol=0, atol=tolerance)
        np.testing.assert_array_equal(state.physics, observation)
        assert (float(outcome[0]), bool(outcome[1]), bool(outcome[2])) == (
            reward,
            terminated,
            truncated,
        )
    return steps, terminated, truncated


# One Euler step is a handful of roundings of numbers of size at most 30 (an angular acceleration)
# times 0.02 s, added to numbers of size at most 5: 10 ulps of 4 are 9e-15 and 5e-6.
@pytest.mark.parametrize("seed", range(5))
def test_random_actions_step_for_step_in_float64(x64, seed):
    rng = np.random.default_rng(seed)
    records = gym_episode(seed, lambda _: int(rng.integers(2)))
    _, terminated, truncated = check_episode(records, 9e-15)
    assert terminated and not truncated


def test_random_actions_step_for_step_in_float32():
    rng = np.random.default_rng(0)
    check_episode(gym_episode(0, lambda _: int(rng.integers(2))), 5e-6)


def test_time_limit_is_a_truncation_at_step_500(x64):
    assert check_episode(gym_episode(3, balance), 9e-15) == (499, False, True)


def test_leaving_the_track_terminates(x64):
    peer = gymnasium.make("CartPole-v1")
    peer.reset(seed=0)
    for start in ([2.39, 1.0, 0.0, 0.0], [-2.39, -1.0, 0.0, 0.0], [0.0, 0.0, -0.209, -0.6]):
        peer.unwrapped.state = np.array(start)
        _, _, terminated, _, _ = peer.step(1)
        state = CartPoleState(physics=jnp.array(start), steps=jnp.int32(0))
        assert terminated and bool(STEP(state, jnp.int32(1), KEY)[3])
        peer.unwrapped.steps_beyond_terminated = None


def test_free_running_episode_in_float64(x64):
    """Errors of 1 ulp grow by about exp(3.8 / s * 0.02 s) a step: by 100 in 60 steps."""
    rng = np.random.default_rng(5)
    records = list(gym_episode(5, lambda _: int(rng.integers(2))))
    state = CartPoleState(physics=jnp.asarray(records[0][1]), steps=jnp.int32(0))
    for _, _, action, after, _, terminated, _ in records:
        state, observation, _, fell, _ = STEP(state, jnp.int32(action), KEY)
        np.testing.assert_allclose(observation, after, rtol=0, atol=1e-12)
        assert bool(fell) == terminated


def test_start_states_fill_the_range():
    keys = jax.random.split(KEY, 2000)
    _, observations = jax.vmap(CartPole().reset)(keys)
    assert observations.shape == (2000, 4)
    assert np.all(np.abs(observations) <= 0.05)
    # Standard error of the mean of 2,000 uniforms on +-0.05 is 0.00065.
    np.testing.assert_allclose(np.mean(observations, axis=0), 0.0, atol=0.003)
    assert np.all(np.max(observations, axis=0) > 0.049)


def test_bandit_rewards_the_right_label_and_ends():
    bandit = DigitsBandit(images=jnp.eye(3), labels=jnp.array([7, 1, 4]))
    for seed in range(6):
        label, image = bandit.reset(jax.random.key(seed))
        row = int(np.argmax(image))
        assert int(label) == [7, 1, 4][row]
        for action in range(10):
            _, _, reward, terminated, truncated = bandit.step(label, jnp.int32(action), KEY)
            assert float(reward) == float(action == [7, 1, 4][row])
            assert bool(terminated) and not bool(truncated)


def test_digit_splits_are_disjoint_and_few():
    split = split_digits(3, test_share=0.3, rare_classes=(8, 9), rare_examples=4)
    parts = (split.pretraining, split.feedback, split.test)
    assert [len(part.labels) for part in parts] == [629, 629, 539]
    rows = {part.tobytes() for digits in parts for part in digits.images}
    assert len(rows) == 1797  # all the images are different, and each stands in one part
    counts = np.bincount(split.pretraining.labels, weights=split.pretraining.weights, minlength=10)
    assert counts[8] == counts[9] == 4 and np.all(counts[:8] > 40)
    assert np.all(split.feedback.weights == 1) and split.feedback.images.max() == 1.0


@pytest.mark.slow
def test_mlp_starts_nearly_uniform_and_has_two_networks():
    model = PolicyMLP(num_actions=5, widths=(8, 8), activation="tanh")
    x = jax.random.normal(KEY, (3, 4, 6))
    params = model.init(KEY, x)
    logits, values = model.apply(params, x)
    assert logits.shape == (3, 4, 5) and values.shape == (3, 4)
    assert np.max(np.abs(logits)) < 0.05
    # The value network has no part in the logits.
    grads = jax.grad(lambda params: jnp.sum(model.apply(params, x).values))(params)["params"]
    assert all(np.all(grads[name]["kernel"] == 0) for name in ("policy_0", "policy_1", "logits"))
    assert np.any(grads["value_0"]["kernel"] != 0)
    kernel = params["params"]["policy_1"]["kernel"]
    np.testing.assert_allclose(kernel.T @ kernel, 2 * np.eye(8), atol=1e-5)


class Swaying(CartPole):
    """A CartPole of which a step shows less than the start."""

    def step(self, state, action, key):
        after, observation, reward, fell, over = super().step(state, action, key)
        return after, observation[:2], reward, fell, over


class Endless(CartPole):
    """A CartPole that no time limit cuts."""

    def step(self, state, action, key):
        return super().step(state, action, key)[:4]


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (Swaying, r"cartpole: reset gives observation float32\[4\], step float32\[2\]; wanted are"),
        (Endless, "cartpole: step gives 4 results; wanted are"),
    ],
)
def test_steps_that_break_the_protocol_are_refused(environment, message):
    with pytest.raises(TypeError, match=message):
        dataclasses.replace(CARTPOLE, environment=environment).made(500)
