"""Stable-Baselines3: PPO's own collection, buffer and update, on given values and advantages."""

import gymnasium
import numpy as np
import torch
from stable_baselines3 import PPO

from benchmarks.conformance.peers.adapter import Adapter, Capability, NotOffered, installed


class Steps(gymnasium.Env):
    """Observation t is the number t; after the last reward the episode ends or is cut."""

    def __init__(self, rewards, truncated, actions=2):
        self.rewards, self.truncated, self.now = rewards, truncated, 0
        self.action_space = gymnasium.spaces.Discrete(actions)
        self.observation_space = gymnasium.spaces.Box(0, len(rewards), (1,), np.float32)

    def observation(self):
        return np.array([self.now], np.float32)

    def reset(self, *, seed=None, options=None):
        self.now = 0
        return self.observation(), {}

    def step(self, action):
        reward, self.now = float(self.rewards[self.now]), self.now + 1
        over = self.now == len(self.rewards)
        return self.observation(), reward, over and not self.truncated, over and self.truncated, {}


def algorithm(env, steps, **settings):
    return PPO(
        "MlpPolicy", env, n_steps=steps, batch_size=steps, n_epochs=1, device="cpu", **settings
    )


def with_values(model, table):
    """The value of observation t is entry t."""
    policy, forward = model.policy, model.policy.forward

    def values(observations):
        return torch.as_tensor(table, dtype=torch.float32)[observations[:, 0].long()][:, None]

    def acting(observations, deterministic=False):
        actions, _, logps = forward(observations, deterministic)
        return actions, values(observations), logps

    policy.predict_values, policy.forward = values, acting
    return model


def time_limit(rewards, values, final_value, gamma, truncated):
    """A whole episode, collected by `learn` (its update follows and changes nothing here)."""
    env = Steps(rewards, truncated)
    model = algorithm(env, len(rewards), gamma=gamma, gae_lambda=1.0)
    with_values(model, [*values, final_value])
    _, callback = model._setup_learn(len(rewards))
    model.collect_rollouts(model.env, callback, model.rollout_buffer, len(rewards))
    return float(model.rollout_buffer.returns[0, 0])


def returns(rewards, values, mask, *, gamma, gae_lambda):
    if not np.all(mask):
        raise NotOffered("takes no mask")
    found = []
    for row, baseline in zip(rewards, values, strict=True):
        env = Steps(row, truncated=False)
        model = algorithm(env, len(row), gamma=gamma, gae_lambda=gae_lambda)
        with_values(model, [*baseline, 0.0])
        _, callback = model._setup_learn(len(row))
        model.collect_rollouts(model.env, callback, model.rollout_buffer, len(row))
        found.append(model.rollout_buffer.returns[:, 0])
    return np.stack(found)


def surrogate_gradient(log_ratios, advantages, clip):
    """One batch of all decisions; action i is decision i. The loss is their mean."""
    count = len(advantages)
    env = Steps(np.zeros(count), truncated=False, actions=count)
    model = algorithm(env, count, clip_range=clip, normalize_advantage=False, vf_coef=0.0)
    model._setup_learn(count)
    buffer = model.rollout_buffer
    buffer.reset()
    buffer.actions[:, 0, 0], buffer.advantages[:, 0] = np.arange(count), advantages
    buffer.pos, buffer.full = count, True
    logps = torch.tensor(log_ratios, dtype=torch.float32, requires_grad=True)

    def evaluate(observations, actions):
        zeros = torch.zeros(count, requires_grad=True)
        return zeros, logps[actions.long().flatten()], zeros

    model.policy.evaluate_actions = evaluate
    model.train()
    return logps.grad.numpy() * count


COLLECT = "PPO.collect_rollouts"
FUNCTIONS = {
    "time_limit": (time_limit, COLLECT),
    "returns": (returns, f"{COLLECT}, RolloutBuffer.compute_returns_and_advantage"),
    "surrogate_gradient": (surrogate_gradient, "PPO.train"),
}


def adapter() -> Adapter:
    capabilities = {name: Capability(*entry) for name, entry in FUNCTIONS.items()}
    return Adapter("Stable-Baselines3", installed("stable_baselines3", "torch"), capabilities)
