"""A policy and a value function on flat observations (control, small images)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import linen as nn

from jaxalign.numerics.types import Params

ACTIVATIONS = {"tanh": nn.tanh, "relu": nn.relu}


class PolicyOutputs(NamedTuple):
    """logits: `[..., A]` of the action distribution; values: `[...]` predicted returns."""

    logits: jax.Array
    values: jax.Array


class PolicyMLP(nn.Module):
    """Two separate multilayer perceptrons, one for the policy, one for the value.

    Orthogonal initialisation: sqrt(2) in the hidden layers, 0.01 for the logits (so that the first
    policy is nearly uniform), 1 for the value; biases 0.

    Source: Huang et al. 2022, "The 37 implementation details of PPO", details 2 and 13,
    https://iclr-blog-track.github.io/2022/03/25/ppo-implementation-details/
    """

    num_actions: int
    widths: tuple[int, ...]
    activation: str

    @nn.compact
    def __call__(self, observations: jax.Array) -> PolicyOutputs:
        """Reads `[..., D]` observations; every leading axis is a batch axis."""
        logits = dense(self.trunk(observations, "policy"), self.num_actions, 0.01, "logits")
        values = dense(self.trunk(observations, "value"), 1, 1.0, "values")
        return PolicyOutputs(logits=logits, values=values[..., 0])

    def trunk(self, x: jax.Array, name: str) -> jax.Array:
        """Hidden layers of one of the two networks: `[..., D]` to `[..., widths[-1]]`."""
        for layer, width in enumerate(self.widths):
            x = ACTIVATIONS[self.activation](dense(x, width, 2.0**0.5, f"{name}_{layer}"))
        return x


def acting(model: nn.Module, params: Params) -> Callable[[jax.Array], PolicyOutputs]:
    """The policy with these parameters: `observations -> PolicyOutputs`."""

    def policy(observations: jax.Array) -> PolicyOutputs:
        outputs: Any = model.apply({"params": params}, observations)
        return PolicyOutputs(*outputs)

    return policy


def dense(x: jax.Array, width: int, scale: float, name: str) -> jax.Array:
    """Linear layer with orthogonal initialisation; to be called inside a module."""
    return nn.Dense(width, kernel_init=nn.initializers.orthogonal(scale), name=name)(x)
