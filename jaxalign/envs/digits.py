"""Handwritten digits as a contextual bandit: name the image, hear only whether that was right."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign.batches.tokens import pytree

NUM_CLASSES = 10


@pytree
class Digits:
    """Labelled images.

    images: `[N, 64]` float32 in [0, 1].
    labels: `[N]` int32.
    weights: `[N]` float32, 0 for rows left out.
    """

    images: jax.Array
    labels: jax.Array
    weights: jax.Array


@pytree
class DigitsSplit:
    """Three disjoint parts.

    pretraining: has few examples of the rare classes.
    feedback: the pool of the bandit.
    test: for evaluation only.
    """

    pretraining: Digits
    feedback: Digits
    test: Digits


def split_digits(
    seed: int, *, test_share: float, rare_classes: tuple[int, ...], rare_examples: int
) -> DigitsSplit:
    """Splits scikit-learn's 1,797 digits at random: test, and the rest in halves.

    Left-out examples of the rare classes keep their row with weight 0: every seed has the same
    shapes.
    """
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(labels))
    num_test = round(test_share * len(labels))
    middle = num_test + (len(labels) - num_test) // 2
    rows = np.split(order, [num_test, middle])
    test, pretraining, feedback = (take_digits(images, labels, part) for part in rows)
    weights = keep_few(pretraining.labels, rare_classes, rare_examples)
    pretraining = dataclasses.replace(pretraining, weights=weights)
    return DigitsSplit(pretraining=pretraining, feedback=feedback, test=test)


def take_digits(images: np.ndarray, labels: np.ndarray, rows: np.ndarray) -> Digits:
    """Those rows, pixels scaled from 0..16 to 0..1, all of weight 1."""
    return Digits(
        images=jnp.asarray(images[rows] / 16.0, jnp.float32),
        labels=jnp.asarray(labels[rows], jnp.int32),
        weights=jnp.ones(len(rows), jnp.float32),
    )


def keep_few(labels, rare_classes: tuple[int, ...], rare_examples: int) -> jax.Array:
    """`[N]` weights: 1, but 0 for all except the first `rare_examples` rows of each rare class."""
    weights = np.ones(len(labels), np.float32)
    for rare in rare_classes:
        weights[np.flatnonzero(np.asarray(labels) == rare)[rare_examples:]] = 0.0
    return jnp.asarray(weights)


@pytree
class DigitsBandit:
    """Episodes of one step: the action is a class, the reward 1 if it is the right one, else 0.

    images: `[N, 64]`, labels: `[N]`: the pool that `reset` draws from uniformly.
    """

    images: jax.Array
    labels: jax.Array

    def reset(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Draws an image: `(its label, its pixels)`."""
        row = jax.random.randint(key, (), 0, self.labels.shape[0])
        return self.labels[row], self.images[row]

    def step(self, state: jax.Array, action: jax.Array, key: jax.Array):
        """Names the digit; the episode ends."""
        del key
        reward = (action == state).astype(jnp.float32)
        ended = jnp.ones((), bool)
        return state, jnp.zeros((self.images.shape[-1],), self.images.dtype), reward, ended, ~ended
