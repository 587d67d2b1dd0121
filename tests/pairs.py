"""Pairs of log-probabilities: by hand and random ones, and the slopes of losses on them."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

import jaxalign as ja
from jaxalign import PairLengths, PairLogps

BETA, E, LOG2 = 0.3, 0.2, math.log(2)

LENGTHS = PairLengths(chosen=np.array([2.0]), rejected=np.array([4.0]))

HALF = functools.partial(ja.alpha_score, alpha=0.5)


def pair(chosen, rejected) -> PairLogps:
    return PairLogps(
        chosen=jnp.atleast_1d(jnp.asarray(chosen, float)),
        rejected=jnp.atleast_1d(jnp.asarray(rejected, float)),
    )


def value_and_slopes(loss, policy):
    """The sum of the losses, and its slope in each log-probability."""
    value, slopes = jax.value_and_grad(lambda policy: jnp.sum(loss(policy)))(policy)
    return float(value), slopes.chosen, slopes.rejected


RANDOM = -np.random.default_rng(0).exponential(4.0, (4, 40))

POLICY, REFERENCE = PAIRS = [PairLogps(chosen=c, rejected=r) for c, r in RANDOM.reshape(2, 2, 40)]

MANY = PairLengths(chosen=np.full(40, 3.0), rejected=np.full(40, 5.0))
