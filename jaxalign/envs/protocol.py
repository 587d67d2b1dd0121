"""Protocol of an environment: two pure functions, `reset` and `step`, of state and random key.

Environments are frozen dataclasses. One that holds arrays (a data set, say) is a pytree, so that
`jax.vmap` runs many of them, one a seed. They never reset themselves: `jaxalign.rollouts` does, and
keeps the final observation of the episode that ended, which a time limit needs for its bootstrap.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp


class Environment(Protocol):
    """A Markov decision process, one episode at a time; `jax.vmap` makes batches of episodes."""

    def reset(self, key: jax.Array) -> tuple[Any, jax.Array]:
        """Start of an episode: `(state, observation)`."""
        ...

    def step(
        self, state: Any, action: jax.Array, key: jax.Array
    ) -> tuple[Any, jax.Array, jax.Array, jax.Array, jax.Array]:
        """Transition after one action: `(state, observation, reward, terminated, truncated)`.

        The observation is the one the action led to, also where the episode ends. `terminated` says
        that the task ended (nothing follows: value 0), `truncated` that a time limit cut it (its
        value is not 0). Both may be true; then it terminated.
        """
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """The declaration of a control task: an environment under its name in a configuration.

    name: in a configuration. title: in tables.
    environment: `(max_steps=...) -> Environment`, whose episodes are cut after so many steps.
    num_actions: that can be chosen from.
    solved_return: mean return over 100 episodes at which the task counts as solved.
    """

    name: str
    title: str
    environment: Callable[..., Environment]
    num_actions: int
    solved_return: float

    def made(self, max_steps: int) -> Environment:
        """The environment, whose steps are those that the protocol asks for.

        Raises:
          TypeError: they are not.
        """
        environment, key = self.environment(max_steps=max_steps), jax.random.key(0)
        state, observation = jax.eval_shape(environment.reset, key)
        self._require(observation.ndim == 1, f"reset gives an observation {_kind(observation)}")
        action = jax.ShapeDtypeStruct((), jnp.int32)
        result = jax.eval_shape(environment.step, state, action, key)
        self._require(len(result) == 5, f"step gives {len(result)} results")
        for name, before, after in (
            ("state", state, result[0]),
            ("observation", observation, result[1]),
        ):
            message = f"reset gives {name} {_kind(before)}, step {_kind(after)}"
            self._require(_kind(before) == _kind(after), message)
        for name, value in zip(("reward", "terminated", "truncated"), result[2:], strict=True):
            self._require(value.shape == (), f"step gives {name} {_kind(value)}")
        return environment

    def _require(self, right: bool, found: str) -> None:
        if not right:
            raise TypeError(
                f"environment {self.name}: {found}; wanted are a state and an observation [D] that "
                "keep shapes and types, and a number each for reward, terminated, truncated"
            )


def _kind(tree: Any) -> str:
    """Shapes and types of a pytree."""
    leaves = jax.tree.leaves(tree)
    return ", ".join(f"{leaf.dtype}{list(leaf.shape)}" for leaf in leaves)
