"""What an environment is: two pure functions over explicit state and keys.

Environments are frozen dataclasses. One that holds arrays (a data set, say) is a pytree, so that
`jax.vmap` runs many of them, one a seed. They never reset themselves: `jaxalign.rollouts` does, and
keeps the final observation of the episode that ended, which a time limit needs for its bootstrap.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import jax


class Environment(Protocol):
    """One episode of one environment; batches are made with `jax.vmap`."""

    def reset(self, key: jax.Array) -> tuple[Any, jax.Array]:
        """Starts an episode: `(state, observation)`."""
        ...

    def step(
        self, state: Any, action: jax.Array, key: jax.Array
    ) -> tuple[Any, jax.Array, jax.Array, jax.Array, jax.Array]:
        """Takes one action: `(state, observation, reward, terminated, truncated)`.

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
