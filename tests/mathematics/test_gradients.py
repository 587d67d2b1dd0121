"""Gradients of every public function: right to second order, 0 where nothing is learned, finite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from tests.specimens.collection import SPECIMENS
from tests.specimens.specimen import cast, real

WITH_GRADIENTS = [name for name, s in SPECIMENS.items() if s.trained or s.frozen]
DIFFERENTIABLE = [name for name, s in SPECIMENS.items() if s.trained and s.order]
each_function = pytest.mark.parametrize("name", WITH_GRADIENTS)


def as_function_of(specimen, arguments, names, settings):
    """Real results, as a function of some of the arguments."""

    def results(*chosen):
        given = dict(arguments) | dict(zip(names, chosen, strict=True))
        leaves = jax.tree.leaves(specimen(given, **settings))
        return tuple(x for x in leaves if real_result(x))

    return results


def real_result(x) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_are_right(x64, name):
    """Against central differences, first and second order."""
    specimen = SPECIMENS[name]
    for settings in specimen.settings:
        arguments = specimen.arguments()
        chosen = tuple(arguments[trained] for trained in specimen.trained)
        results = as_function_of(specimen, arguments, specimen.trained, settings)
        check_grads(jax.jit(results), chosen, order=specimen.order, modes=["rev"])


def gradients(specimen, arguments, settings):
    """Of a weighted sum of the results, with respect to every trained and frozen argument."""
    names = (*specimen.trained, *specimen.frozen)
    results = as_function_of(specimen, arguments, names, settings)

    def total(*chosen):
        return sum(
            jnp.sum(x * (1.0 + np.arange(x.size).reshape(x.shape))) for x in results(*chosen)
        )

    found = jax.grad(total, tuple(range(len(names))))(*(arguments[name] for name in names))
    return dict(zip(names, found, strict=True))


@each_function
def test_what_is_trained_gets_a_gradient_and_what_is_frozen_none(name):
    specimen = SPECIMENS[name]
    found = gradients(specimen, cast(specimen.arguments(), "float32"), specimen.settings[0])
    for trained in specimen.trained:
        assert all(np.any(leaf) for leaf in jax.tree.leaves(found[trained])), trained
    for frozen in specimen.frozen:
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(found[frozen])), frozen


@each_function
def test_extremes_are_finite(name):
    """Value and gradient in float32 at sizes that no model should reach."""
    specimen = SPECIMENS[name]
    if specimen.extremes is None:
        pytest.skip("no size of its arguments is extreme")
    arguments = cast(specimen.extremes(np.random.default_rng(0)), "float32")
    for settings in specimen.settings:
        found = specimen(arguments, **settings), gradients(specimen, arguments, settings)
        for leaf in jax.tree.leaves(found):
            assert np.isfinite(leaf).all()


@each_function
def test_what_is_masked_is_never_read(name):
    """Not even if it is NaN, and its gradient is exactly 0."""
    specimen = SPECIMENS[name]
    if not specimen.masked:
        pytest.skip("it takes no mask")
    arguments = cast(specimen.arguments(), "float32")
    mask = np.asarray(arguments[specimen.mask], bool)
    poisoned = dict(arguments)
    for masked in specimen.masked:
        fill = np.nan if real(arguments[masked]) else 0
        poisoned[masked] = jnp.where(mask, arguments[masked], fill)
    for settings in specimen.settings:
        ours, clean = specimen(poisoned, **settings), specimen(arguments, **settings)
        for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(clean), strict=True):
            np.testing.assert_array_equal(one, other)
        found = gradients(specimen, poisoned, settings)
        for masked in set(specimen.masked) & set(found):
            assert not np.any(found[masked][~mask]), masked
            assert np.isfinite(found[masked]).all()
