"""CartPole: a pole on a cart, to be balanced by pushing left (0) or right (1)."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from jaxalign.batches.tokens import pytree
from jaxalign.envs.protocol import Task

__all__ = ("CARTPOLE",)

GRAVITY = 9.8  # m/s^2
CART_MASS = 1.0  # kg
POLE_MASS = 0.1  # kg
TOTAL_MASS = CART_MASS + POLE_MASS
POLE_HALF_LENGTH = 0.5  # m
POLE_MOMENT = POLE_MASS * POLE_HALF_LENGTH  # kg m
FORCE = 10.0  # N
TIME_STEP = 0.02  # s
MAX_POSITION = 2.4  # m
MAX_ANGLE = 12 * 2 * math.pi / 360  # rad
START_RANGE = 0.05  # every coordinate starts uniformly within +- this


@pytree
class CartPoleState:
    """Where cart and pole are, and for how long they have been up.

    physics: `[4]` position, velocity, angle, angular velocity (m, m/s, rad, rad/s).
    steps: `[]` int32 steps taken.
    """

    physics: jax.Array
    steps: jax.Array


def move(physics: jax.Array, force: jax.Array) -> jax.Array:
    """The physics `TIME_STEP` seconds later under a force, by one explicit Euler step.

      temp      = (F + m l w^2 sin a) / M
      alpha     = (g sin a - cos a temp) / (l (4/3 - m cos^2 a / M))
      accel     = temp - m l alpha cos a / M

    Args:
      physics: `[4]` position x, velocity, angle a, angular velocity w.
      force: `[]` N, positive to the right.

    Source: Florian 2007, https://coneural.org/florian/papers/05_cart_pole.pdf, the case without
    friction; constants and integrator of gymnasium's CartPole-v1.
    """
    velocity, angle, spin = physics[1], physics[2], physics[3]
    sine, cosine = jnp.sin(angle), jnp.cos(angle)
    temp = (force + POLE_MOMENT * spin**2 * sine) / TOTAL_MASS
    inertia = POLE_HALF_LENGTH * (4.0 / 3.0 - POLE_MASS * cosine**2 / TOTAL_MASS)
    angular_acceleration = (GRAVITY * sine - cosine * temp) / inertia
    acceleration = temp - POLE_MOMENT * angular_acceleration * cosine / TOTAL_MASS
    return physics + TIME_STEP * jnp.stack([velocity, acceleration, spin, angular_acceleration])


@dataclasses.dataclass(frozen=True, kw_only=True)
class CartPole:
    """gymnasium's CartPole-v1: reward 1 a step; a fall terminates, `max_steps` truncates."""

    max_steps: int = 500
    num_actions: int = 2

    def reset(self, key: jax.Array) -> tuple[CartPoleState, jax.Array]:
        """A nearly upright pole on a nearly centred cart, nearly at rest."""
        physics = jax.random.uniform(key, (4,), minval=-START_RANGE, maxval=START_RANGE)
        return CartPoleState(physics=physics, steps=jnp.int32(0)), physics

    def step(self, state: CartPoleState, action: jax.Array, key: jax.Array):
        """One push; the dynamics are deterministic, so `key` is not used."""
        del key
        physics = move(state.physics, jnp.where(action == 1, FORCE, -FORCE))
        steps = state.steps + 1
        fell = (jnp.abs(physics[0]) > MAX_POSITION) | (jnp.abs(physics[2]) > MAX_ANGLE)
        reward = jnp.ones((), physics.dtype)
        return (
            CartPoleState(physics=physics, steps=steps),
            physics,
            reward,
            fell,
            steps >= self.max_steps,
        )


CARTPOLE = Task(
    name="cartpole",
    title="CartPole",
    environment=CartPole,
    num_actions=CartPole.num_actions,
    solved_return=475.0,
)
