"""Epochs of minibatches over one batch of experience: the inner loop of PPO."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxalign.batches.experience import Experience
from jaxalign.errors import UserError
from jaxalign.numerics.masking import whiten
from jaxalign.train.step import Batch, Metrics, TrainState, metric_means

Step = Callable[[Any, Any], tuple[Any, Any]]  # (state, minibatch) -> (state, metric sums)


def minibatch_rows(key: jax.Array, *, rows: int, epochs: int, minibatches: int) -> jax.Array:
    """Row indices of each gradient step, `[epochs * minibatches, rows / minibatches]` int32.

    Every epoch reads all rows once, in the permutation drawn from `fold_in(key, epoch)`.
    """
    if rows % minibatches:
        raise UserError(
            f"{rows} rows of experience do not divide into {minibatches} minibatches; "
            "choose a number of minibatches that divides the rows"
        )
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(epochs))
    orders = jax.vmap(lambda key: jax.random.permutation(key, rows))(keys)
    return orders.reshape(epochs * minibatches, rows // minibatches)


def minibatch(experience: Experience, rows: jax.Array) -> Experience:
    """Minibatch of those rows, with advantages whitened over its unmasked decisions.

    Source: Huang et al. 2022, "The 37 implementation details of PPO", detail 7,
    https://iclr-blog-track.github.io/2022/03/25/ppo-implementation-details/
    """
    part = selected_rows(experience, rows)
    return dataclasses.replace(part, advantages=whiten(part.advantages, part.mask))


def ppo_epochs(
    state: TrainState,
    experience: Experience,
    key: jax.Array,
    *,
    step: Step,
    epochs: int,
    minibatches: int,
) -> tuple[TrainState, Metrics]:
    """Epochs of PPO over the same experience as one `lax.scan`, for use in a compiled program.

    Args:
      state: before the first step.
      experience: `[B, T]`; minibatches are made of whole rows, so B is a multiple of their number.
      key: permutations are folded from it.
      step: `(state, Experience) -> (state, metric sums)`, one gradient step as `summed_step` makes
        it.
      epochs, minibatches: passes over all rows, and steps in each.

    Returns:
      The new state and the metrics' means: sums over all steps, divided once by their weights, so
      that a minibatch in which everything is masked counts for nothing.
    """
    rows = minibatch_rows(
        key, rows=experience.actions.shape[0], epochs=epochs, minibatches=minibatches
    )
    state, sums = jax.lax.scan(
        lambda state, rows: step(state, minibatch(experience, rows)), state, rows
    )
    return state, metric_means(jax.tree.map(lambda x: x.sum(axis=0), sums), 0)


def selected_rows(batch: Batch, rows: jax.Array) -> Batch:
    """The rows of these indices, of every leaf of a batch."""
    return jax.tree.map(lambda leaf: leaf[rows], batch)


def ppo_epochs_loop(
    state: TrainState,
    experience: Batch,
    key: jax.Array,
    *,
    step: Step,
    epochs: int,
    minibatches: int,
    take: Callable[[Any, jax.Array], Any] = minibatch,
) -> tuple[TrainState, Metrics]:
    """`ppo_epochs` as a Python loop, for a step that a layout has placed on several devices.

    Args:
      experience: `Experience`, or another batch with an `index`.
      take: `(experience, rows) -> minibatch`; `selected_rows` where nothing is to be whitened.
      state, key, step, epochs, minibatches: as in `ppo_epochs`.

    Returns:
      As `ppo_epochs`.
    """
    rows = minibatch_rows(
        key, rows=experience.index.shape[0], epochs=epochs, minibatches=minibatches
    )
    take = jax.jit(take)
    sums = []
    for part in rows:
        state, of_step = step(state, take(experience, part))
        sums.append(of_step)
    return state, metric_means(jax.tree.map(lambda *values: sum(values), *sums), 0)
