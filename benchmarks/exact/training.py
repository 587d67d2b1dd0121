"""Training in the exact world: one compiled scan a method, and how far from the optimum it ends."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from benchmarks.exact.methods import Method
from benchmarks.exact.world import World, logits_of, logps, objective, optimal_logps, params_of
from jaxalign.train.optimizers import make_optimizer
from jaxalign.train.step import initial_state, train_step

UPDATES = 800


class Distance(NamedTuple):
    """From the closed-form optimum.

    kl: KL(policy, optimum), nats. gap: largest |log pi - log pi*| of a response, nats.
    objective, optimum: J of the policy, and its maximum, reward units.
    """

    kl: jax.Array
    gap: jax.Array
    objective: jax.Array
    optimum: jax.Array


@jax.jit
def distance(logits: jax.Array, world: World, target: jax.Array | None = None) -> Distance:
    """How far a policy is from the optimum, or from another target (`[R]` log-probabilities)."""
    best = optimal_logps(world)
    policy, target = logps(logits), best if target is None else target
    return Distance(
        kl=jnp.sum(jnp.exp(policy) * (policy - target)),
        gap=jnp.max(jnp.abs(policy - target)),
        objective=objective(logits, world),
        optimum=objective(logits_of(best), world),
    )


def train(
    method: Method, world: World, key: jax.Array, *, updates: int, learning_rate: float
) -> tuple[jax.Array, jax.Array]:
    """The logits after training, and the norm of the last gradient.

    Adam from the reference on; the learning rate falls to 0 by a cosine.
    """
    optimizer = make_optimizer(
        learning_rate=learning_rate, schedule="cosine", total_steps=updates, max_grad_norm=None
    )
    step = functools.partial(train_step, loss_fn=method.loss_fn, optimizer=optimizer)

    def one_batch(state, _):
        batch_key = jax.random.fold_in(state.key, state.step)
        batch = method.collect(state.params, world, batch_key)
        state, metrics = jax.lax.scan(
            lambda state, _: step(state, batch), state, length=method.epochs
        )
        return state, metrics["grad_norm"][-1]

    state = initial_state(params_of(world.reference), optimizer, key)
    state, norms = jax.lax.scan(one_batch, state, length=updates // method.epochs)
    return state.params["logits"], norms[-1]


@functools.partial(jax.jit, static_argnames=("method", "updates", "learning_rate"))
def arrive(
    method: Method,
    world: World,
    seeds: jax.Array,
    *,
    updates: int,
    learning_rate: float = 0.1,
) -> tuple[jax.Array, jax.Array]:
    """`train` from every seed: logits `[S, PREFIXES, VOCABULARY]` and gradient norms `[S]`."""

    def one(seed):
        key = jax.random.key(seed)
        return train(method, world, key, updates=updates, learning_rate=learning_rate)

    return jax.vmap(one)(seeds)
