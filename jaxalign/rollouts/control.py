"""Rollouts of a policy in environments, and the experience that PPO learns from.

`rollout` runs B environments for T steps and resets those whose episode ended; `experience` adds
advantages and value targets.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxalign.advantages import gae
from jaxalign.batches.experience import Experience
from jaxalign.batches.tokens import pytree
from jaxalign.envs.protocol import Environment
from jaxalign.logprobs import action_logps, entropy
from jaxalign.numerics.types import Params


@pytree
class EnvironmentStates:
    """States of B environments in the middle of their episodes.

    states: pytree of `[B, ...]`, the environments' own.
    observations: `[B, ...]` inputs of the next decision.
    returns: `[B]` rewards of the current episode so far, undiscounted.
    index: `[B]` int32 global index of the environment; its noise is folded from it.
    """

    states: Any
    observations: jax.Array
    returns: jax.Array
    index: jax.Array


@pytree
class Rollout:
    """Trajectories of T steps of B environments under the behaviour policy.

    observations, next_observations: `[B, T, ...]` before each step, and after it before any reset.
    actions: `[B, T]` int32. rewards: `[B, T]`.
    terminations, truncations: `[B, T]` bool, the task ended / only the time limit did; never both.
    behaviour_logps, values: `[B, T]` of the policy at the time of acting.
    episode_returns: `[B, T]` undiscounted, of the episode up to and with this step.
    index: `[B]` int32 global index of the environment.
    """

    observations: jax.Array
    next_observations: jax.Array
    actions: jax.Array
    rewards: jax.Array
    terminations: jax.Array
    truncations: jax.Array
    behaviour_logps: jax.Array
    values: jax.Array
    episode_returns: jax.Array
    index: jax.Array

    @property
    def ended(self) -> jax.Array:
        """`[B, T]` bool: an episode ended with this step, for either reason."""
        return self.terminations | self.truncations


def step_keys(key: jax.Array, index: jax.Array, step: int | jax.Array) -> jax.Array:
    """Random keys `[B, 3]` (act, step, reset) of each environment at a step, whatever its batch."""
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, index)
    keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, step)
    return jax.vmap(lambda key: jax.random.split(key, 3))(keys)


def start(environment: Environment, key: jax.Array, index: jax.Array) -> EnvironmentStates:
    """Initial states of one environment for every entry of `index` (`[B]` int32)."""
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, index)
    states, observations = jax.vmap(environment.reset)(keys)
    returns = jnp.zeros(index.shape)
    return EnvironmentStates(states=states, observations=observations, returns=returns, index=index)


def restart_ended(
    environment: Environment, ended: jax.Array, keys: jax.Array, running: EnvironmentStates
) -> EnvironmentStates:
    """States with a new episode where the old one ended (`[B]` bool); `keys [B]` draw it."""
    states, observations = jax.vmap(environment.reset)(keys)

    def pick(new: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(ended.reshape(-1, *[1] * (old.ndim - 1)), new, old)

    return EnvironmentStates(
        states=jax.tree.map(pick, states, running.states),
        observations=pick(observations, running.observations),
        returns=jnp.where(ended, 0.0, running.returns),
        index=running.index,
    )


def rollout(
    environment: Environment,
    policy: Callable[[jax.Array], tuple[jax.Array, jax.Array]],
    running: EnvironmentStates,
    key: jax.Array,
    *,
    length: int,
) -> tuple[EnvironmentStates, Rollout]:
    """Trajectories of `length` steps, with new episodes where old ones end.

    Args:
      environment: one environment; it is batched here.
      policy: `observations [B, ...] -> (logits [B, A], values [B])`.
      running: states to start from.
      key: of this rollout; noise is folded from it, the environment's index and the step.
      length: T, steps of each environment.

    Returns:
      The states after the last step, and the trajectories.
    """

    def one_step(running: EnvironmentStates, step: jax.Array) -> tuple[EnvironmentStates, Rollout]:
        act_keys, env_keys, reset_keys = jnp.moveaxis(step_keys(key, running.index, step), 1, 0)
        logits, values = policy(running.observations)
        actions = jax.vmap(jax.random.categorical)(act_keys, logits).astype(jnp.int32)
        states, observations, rewards, terminated, truncated = jax.vmap(environment.step)(
            running.states, actions, env_keys
        )
        returns = running.returns + rewards
        record = Rollout(
            observations=running.observations,
            next_observations=observations,
            actions=actions,
            rewards=rewards,
            terminations=terminated,
            truncations=truncated & ~terminated,
            behaviour_logps=action_logps(logits, actions),
            values=values,
            episode_returns=returns,
            index=running.index,
        )
        after = EnvironmentStates(
            states=states, observations=observations, returns=returns, index=running.index
        )
        return restart_ended(environment, terminated | truncated, reset_keys, after), record

    running, steps = jax.lax.scan(one_step, running, jnp.arange(length))
    steps = jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), steps)
    return running, dataclasses.replace(steps, index=running.index)


def experience(
    rollout: Rollout, next_values: jax.Array, *, gamma: float, gae_lambda: float
) -> Experience:
    """Experience from a rollout: its decisions with advantages and value targets.

    Args:
      rollout: `[B, T]`; its rewards may have been shaped.
      next_values: `[B, T]` the behaviour policy's values of `next_observations`. Used where a time
        limit cut an episode, and after the last step; a termination ignores them.
      gamma, gae_lambda: discount and trace decay, in [0, 1].
    """
    chex.assert_equal_shape([rollout.rewards, next_values])
    mask = jnp.ones(rollout.rewards.shape, bool)
    advantages, returns = gae(
        rollout.rewards,
        rollout.values,
        mask,
        gamma=gamma,
        gae_lambda=gae_lambda,
        terminations=rollout.terminations,
        truncations=rollout.truncations,
        final_values=next_values,
        bootstrap_values=next_values[:, -1],
    )
    return Experience(
        inputs=rollout.observations,
        actions=rollout.actions,
        mask=mask,
        behaviour_logps=rollout.behaviour_logps,
        values=rollout.values,
        advantages=advantages,
        returns=returns,
        index=rollout.index,
    )


def decision_rows(experience: Experience) -> Experience:
    """Experience with one decision a row: `[B, T, ...]` becomes `[B * T, 1, ...]`, row by row."""
    rows, steps = experience.actions.shape
    index = experience.index[:, None] * steps + jnp.arange(steps, dtype=jnp.int32)[None, :]
    without_index = dataclasses.replace(experience, index=index)
    flat = jax.tree.map(lambda x: x.reshape(rows * steps, 1, *x.shape[2:]), without_index)
    return dataclasses.replace(flat, index=flat.index[:, 0])


def action_policy(
    model: nn.Module,
) -> Callable[..., tuple[jax.Array, jax.Array, jax.Array]]:
    """Policy and values for PPO: `(params, Experience, keys=None) -> (logps, entropy, values)`.

    Each is `[B, T]`.

    Args:
      model: a module that maps observations `[..., D]` to logits `[..., A]` and values `[...]`.
    """

    def evaluate(
        params: Params, batch: Experience, keys: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        del keys  # no dropout
        outputs: Any = model.apply({"params": params}, batch.inputs)
        logits, values = outputs
        return action_logps(logits, batch.actions), entropy(logits), values

    return evaluate
