"""Checks of arguments: what they give back."""

import jax
import jax.numpy as jnp

from jaxalign.numerics.arguments import flags


def test_booleans_are_taken_as_they_are():
    """Nothing is computed, so a program with masks of booleans is the one without the check."""
    mask = jnp.array([True, False])
    assert flags(mask=mask) is mask
    assert jax.make_jaxpr(lambda mask: flags(mask=mask))(mask).eqns == []
