"""Rollouts of a counting environment by hand, resets, time limits, minibatches, PPO's passes."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxalign import objectives
from jaxalign.envs.cartpole import CartPole
from jaxalign.errors import UserError
from jaxalign.rollouts.control import action_policy, decision_rows, experience, rollout, start
from jaxalign.train.epochs import minibatch, minibatch_rows, ppo_epochs, ppo_epochs_loop
from jaxalign.train.step import initial_state, summed_step

KEY = jax.random.key(0)
RUN = jax.jit(rollout, static_argnums=(0, 1), static_argnames="length")
START = jax.jit(start, static_argnums=0)
EXPERIENCE = jax.jit(experience, static_argnames=("gamma", "gae_lambda"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counting:
    """Counts its steps from 0: observation and reward are the count; ends at `end` or `limit`."""

    end: int
    limit: int

    def reset(self, key):
        return jnp.int32(0), jnp.zeros(1)

    def step(self, state, action, key):
        count = state + 1
        number = count.astype(jnp.float32)
        return count, number[None], number, count >= self.end, count >= self.limit


def counting_policy(observations):
    """Two equal actions; the value is ten times the count."""
    return jnp.zeros((*observations.shape[:-1], 2)), 10 * observations[..., 0]


def run_counting(environment, lengths, batch=2):
    running = START(environment, KEY, jnp.arange(batch))
    parts = []
    for length in lengths:
        running, steps = RUN(environment, counting_policy, running, KEY, length=length)
        parts.append(steps)
    return running, parts


def make_experience(steps, gamma=0.5, gae_lambda=0.0):
    next_values = counting_policy(steps.next_observations)[1]
    return EXPERIENCE(steps, next_values, gamma=gamma, gae_lambda=gae_lambda)


def test_auto_reset_keeps_the_final_observation():
    _, (steps,) = run_counting(Counting(end=9, limit=3), [7])
    for row in range(2):
        assert steps.observations[row, :, 0].tolist() == [0, 1, 2, 0, 1, 2, 0]
        assert steps.next_observations[row, :, 0].tolist() == [1, 2, 3, 1, 2, 3, 1]
        assert steps.rewards[row].tolist() == [1, 2, 3, 1, 2, 3, 1]
        assert steps.episode_returns[row].tolist() == [1, 3, 6, 1, 3, 6, 1]
        assert steps.truncations[row].tolist() == [False, False, True, False, False, True, False]
    assert not steps.terminations.any()
    np.testing.assert_allclose(steps.behaviour_logps, np.log(0.5), rtol=1e-6)
    assert steps.index.tolist() == [0, 1]


def test_truncation_bootstraps_from_the_final_observation():
    _, (steps,) = run_counting(Counting(end=9, limit=2), [4])
    # delta = r + 0.5 V(next) - V with V = 10 count. Step 2 leads to count 2 and is cut there: its
    # next value is 20, not 0 (a termination), and not V(0) = 0 of the observation after the reset.
    expected = [1 + 5 - 0, 2 + 10 - 10, 1 + 5 - 0, 2 + 10 - 10]
    assert make_experience(steps).advantages[0].tolist() == expected
    # With lambda 1 the trace stops at the cut: 6 + 0.5 * 2 = 7, then 2.
    advantages = make_experience(steps, gae_lambda=1.0).advantages
    assert advantages[0].tolist() == [7, 2, 7, 2]
    assert make_experience(steps, gae_lambda=1.0).returns[0].tolist() == [7, 12, 7, 12]


def test_termination_does_not_bootstrap_even_at_the_time_limit():
    for limit in (9, 2):
        _, (steps,) = run_counting(Counting(end=2, limit=limit), [4])
        assert steps.terminations[0].tolist() == [False, True, False, True]
        assert not steps.truncations.any()
        # delta of the last step: 2 + 0.5 * 0 - 10.
        assert make_experience(steps).advantages[0].tolist() == [6, -8, 6, -8]


def test_rollout_cut_in_mid_episode_bootstraps_from_where_it_stands():
    _, (first, second) = run_counting(Counting(end=4, limit=9), [3, 3])
    # Counts 0, 1, 2 -> 3 without an end: the last delta is 3 + 0.5 * 30 - 20 = -2.
    assert make_experience(first).advantages[0].tolist() == [6, 2, -2]
    # The next rollout goes on from count 3, ends at 4 (4 - 30 = -26), and starts anew.
    assert second.observations[0, :, 0].tolist() == [3, 0, 1]
    assert second.episode_returns[0].tolist() == [10, 1, 3]
    assert make_experience(second).advantages[0].tolist() == [-26, 6, 2]


def linear_policy(observations):
    weights = jnp.array([[0.1, -0.2], [0.5, 0.3], [2.0, -1.0], [1.0, -0.5]])
    return observations @ weights, observations.sum(axis=-1)


@pytest.mark.slow
def test_many_environments_are_many_single_ones():
    environment = CartPole(max_steps=20)
    running = START(environment, KEY, jnp.arange(5))
    running, together = RUN(environment, linear_policy, running, KEY, length=40)
    for row in (0, 3):
        alone = START(environment, KEY, jnp.array([row]))
        alone, steps = RUN(environment, linear_policy, alone, KEY, length=40)
        for name in ("actions", "terminations", "truncations"):
            np.testing.assert_array_equal(getattr(steps, name)[0], getattr(together, name)[row])
        np.testing.assert_allclose(steps.observations[0], together.observations[row], atol=1e-5)
        np.testing.assert_allclose(alone.observations[0], running.observations[row], atol=1e-5)
    assert together.terminations.any() and together.truncations.any()
    # Different environments, and different rollouts, draw different noise.
    assert len({tuple(row.tolist()) for row in together.actions}) == 5
    _, again = RUN(environment, linear_policy, running, jax.random.key(1), length=40)
    assert (again.actions != together.actions).any(axis=1).all()


def test_actions_follow_the_policy():
    def policy(observations):
        return jnp.tile(jnp.log(jnp.array([0.2, 0.8])), (len(observations), 1)), observations[:, 0]

    environment = Counting(end=5, limit=9)
    running = START(environment, KEY, jnp.arange(64))
    _, steps = RUN(environment, policy, running, KEY, length=64)
    # 4,096 draws: standard error sqrt(0.2 * 0.8 / 4096) = 0.006.
    assert abs(float(steps.actions.mean()) - 0.8) < 0.03
    expected = np.where(steps.actions == 1, np.log(0.8), np.log(0.2))
    np.testing.assert_allclose(steps.behaviour_logps, expected, rtol=1e-6)


def test_decisions_are_rows_of_one_step():
    _, (steps,) = run_counting(Counting(end=9, limit=3), [4], batch=3)
    batch = dataclasses.replace(make_experience(steps), actions=jnp.arange(12).reshape(3, 4))
    rows = decision_rows(batch)
    assert rows.actions.tolist() == [[action] for action in range(12)]
    assert rows.index.tolist() == list(range(12))
    assert rows.inputs.shape == (12, 1, 1) and rows.mask.shape == (12, 1)
    np.testing.assert_array_equal(rows.advantages[:, 0], batch.advantages.reshape(-1))


def test_every_epoch_reads_every_row_once():
    rows = minibatch_rows(KEY, rows=12, epochs=3, minibatches=4)
    assert rows.shape == (12, 3)
    epochs = rows.reshape(3, 12)
    for epoch in epochs:
        assert sorted(epoch.tolist()) == list(range(12))
    assert len({tuple(epoch.tolist()) for epoch in epochs}) == 3
    np.testing.assert_array_equal(rows, minibatch_rows(KEY, rows=12, epochs=3, minibatches=4))
    other = minibatch_rows(jax.random.key(1), rows=12, epochs=3, minibatches=4)
    assert (rows != other).any()


def test_uneven_minibatches_are_a_user_error():
    with pytest.raises(UserError, match=r"10 rows .* 4 minibatches"):
        minibatch_rows(KEY, rows=10, epochs=1, minibatches=4)


def random_experience(rows=8, steps=3):
    _, (counted,) = run_counting(Counting(end=9, limit=9), [steps], batch=rows)
    advantages = jax.random.normal(KEY, (rows, steps)) * 3 + 5
    mask = jnp.ones((rows, steps), bool).at[0, 1].set(False)
    return dataclasses.replace(make_experience(counted), advantages=advantages, mask=mask)


@pytest.mark.slow
def test_advantages_are_whitened_within_each_minibatch():
    batch = random_experience()
    for rows in (jnp.array([0, 3]), jnp.array([1, 5, 6])):
        part = minibatch(batch, rows)
        assert part.index.tolist() == rows.tolist()
        real = np.asarray(part.advantages)[np.asarray(part.mask)]
        np.testing.assert_allclose(real.mean(), 0, atol=1e-6)
        np.testing.assert_allclose(real.std(), 1, rtol=1e-5)
        kept = np.asarray(batch.advantages)[rows][np.asarray(part.mask)]
        np.testing.assert_allclose(real, (kept - kept.mean()) / kept.std(), atol=1e-5)


def recording_step(state, part):
    """Remembers, for each step, the sum of squares of the rows it read and its first advantage."""
    count, seen = state
    seen = seen.at[count].set(jnp.sum(part.index**2).astype(jnp.float32))
    weight = part.mask.sum().astype(jnp.float32)
    metrics = {
        "first": (part.advantages[0, 0], jnp.float32(1)),
        "count": (count.astype(jnp.float32), jnp.float32(1)),
        "index": (weight * part.index.sum(), weight),
    }
    return (count + 1, seen), metrics


@pytest.mark.slow
def test_scanned_and_looped_epochs_agree():
    batch = random_experience()
    outcomes = [
        run((jnp.int32(0), jnp.zeros(6)), batch, KEY, step=recording_step, epochs=3, minibatches=2)
        for run in (ppo_epochs, ppo_epochs_loop)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), *outcomes)
    (count, seen), metrics = outcomes[0]
    assert count == 6 and float(metrics["count"]) == 2.5  # mean of 0 ... 5
    # Each epoch of two minibatches reads all rows: 0 + 1 + 4 + ... + 49 = 140.
    np.testing.assert_array_equal(seen.reshape(3, 2).sum(axis=1), 140)


@pytest.mark.slow
@pytest.mark.parametrize("run", [ppo_epochs, ppo_epochs_loop])
def test_minibatches_without_anything_count_for_nothing(run):
    """Half of the rows are masked; the entropy of a uniform policy stays log 3."""
    batch = random_experience(4)
    batch = dataclasses.replace(batch, mask=batch.mask & (jnp.arange(4) < 2)[:, None])

    def uniform(params, part, keys=None):
        return (
            part.behaviour_logps + 0 * params,
            jnp.full(part.mask.shape, jnp.log(3.0)),
            part.values,
        )

    loss = objectives.ppo(
        uniform, clip_range=0.2, value_clip_range=None, value_coef=0.0, entropy_coef=0.0
    )
    optimizer = optax.sgd(1.0)
    step = partial(summed_step, loss_fn=loss, optimizer=optimizer)
    state = initial_state(jnp.zeros(()), optimizer, KEY)
    _, metrics = run(state, batch, KEY, step=step, epochs=2, minibatches=4)
    assert float(metrics["ppo/entropy"]) == pytest.approx(float(np.log(3)), rel=1e-6)
    nothing = dataclasses.replace(batch, mask=jnp.zeros_like(batch.mask))
    _, metrics = run(state, nothing, KEY, step=step, epochs=2, minibatches=4)
    assert not any(float(value) for value in metrics.values())


def test_metrics_are_sums_over_sums():
    """Minibatches of different weights: not the mean of their means."""
    batch = random_experience(4)
    batch = dataclasses.replace(batch, mask=jnp.arange(3)[None, :] <= jnp.arange(4)[:, None])
    state = (jnp.int32(0), jnp.zeros(4))
    _, metrics = ppo_epochs(state, batch, KEY, step=recording_step, epochs=1, minibatches=4)
    # 1, 2, 3, 3 decisions in rows 0 ... 3: (2 + 6 + 9) / 9
    assert float(metrics["index"]) == pytest.approx(17 / 9)


def test_action_policy_is_the_models_distribution():
    class Model:
        def apply(self, variables, observations):
            return observations @ variables["params"], observations[..., 0]

    params = jnp.array([[1.0, -1.0, 0.0]])
    batch = dataclasses.replace(
        random_experience(2, 2), actions=jnp.array([[0, 1], [2, 2]]), inputs=jnp.ones((2, 2, 1))
    )
    logps, entropies, values = action_policy(Model())(params, batch)
    p = np.exp([1.0, -1.0, 0.0]) / np.sum(np.exp([1.0, -1.0, 0.0]))
    np.testing.assert_allclose(np.exp(logps), [[p[0], p[1]], [p[2], p[2]]], rtol=1e-6)
    np.testing.assert_allclose(entropies, np.full((2, 2), -np.sum(p * np.log(p))), rtol=1e-6)
    assert values.tolist() == [[1, 1], [1, 1]]
