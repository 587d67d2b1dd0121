"""Gradients of every public function: right to second order, 0 where nothing is learned, finite."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from tests.cases.case import cast, real
from tests.checks.applies import to_those


def with_gradients(case) -> bool:
    return bool(case.trained or case.frozen)


def as_function_of(case, arguments, names, settings):
    """Real results, as a function of some of the arguments."""

    def results(*chosen):
        given = dict(arguments) | dict(zip(names, chosen, strict=True))
        leaves = jax.tree.leaves(case(given, **settings))
        return tuple(x for x in leaves if real_result(x))

    return results


def real_result(x) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)


@pytest.mark.slow
@pytest.mark.compiled
@to_those(lambda case: case.trained and case.order)
def test_gradients_are_right(x64, case):
    """Against central differences, first and second order."""
    for settings in case.settings:
        arguments = case.arguments()
        chosen = tuple(arguments[trained] for trained in case.trained)
        results = as_function_of(case, arguments, case.trained, settings)
        check_grads(jax.jit(results), chosen, order=case.order, modes=["rev"])


@functools.cache
def gradients_of(case, number):
    """Of a weighted sum of the results, with respect to every trained and frozen argument: a
    function of all arguments, for the settings of that number.
    """
    names = {*case.trained, *case.frozen}

    def total(chosen, others):
        results = as_function_of(case, others, tuple(chosen), case.settings[number])
        return sum(
            jnp.sum(x * (1.0 + np.arange(x.size).reshape(x.shape)))
            for x in results(*chosen.values())
        )

    slopes = jax.jit(jax.grad(total))

    def gradients(arguments):
        chosen = {name: x for name, x in arguments.items() if name in names}
        return slopes(chosen, {name: x for name, x in arguments.items() if name not in names})

    return gradients


@to_those(with_gradients)
def test_what_is_trained_gets_a_gradient_and_what_is_frozen_none(case):
    found = gradients_of(case, 0)(cast(case.arguments(), "float32"))
    for trained in case.trained:
        assert all(np.any(leaf) for leaf in jax.tree.leaves(found[trained])), trained
    for frozen in case.frozen:
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(found[frozen])), frozen


@to_those(lambda case: with_gradients(case) and case.extremes)
def test_extremes_are_finite(case):
    """Value and gradient in float32 at sizes that no model should reach."""
    arguments = cast(case.extremes(np.random.default_rng(0)), "float32")
    for number, compiled in enumerate(case.compiled):
        found = compiled(arguments), gradients_of(case, number)(arguments)
        for leaf in jax.tree.leaves(found):
            assert np.isfinite(leaf).all()


@to_those(lambda case: with_gradients(case) and case.masked)
def test_what_is_masked_is_never_read(case):
    """Not even if it is NaN, and its gradient is exactly 0."""
    arguments = cast(case.arguments(), "float32")
    mask = np.asarray(arguments[case.mask], bool)
    poisoned = dict(arguments)
    for masked in case.masked:
        fill = np.nan if real(arguments[masked]) else 0
        poisoned[masked] = jnp.where(mask, arguments[masked], fill)
    for number, compiled in enumerate(case.compiled):
        ours, clean = compiled(poisoned), compiled(arguments)
        for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(clean), strict=True):
            np.testing.assert_array_equal(one, other)
        found = gradients_of(case, number)(poisoned)
        for masked in set(case.masked) & set(found):
            assert not np.any(found[masked][~mask]), masked
            assert np.isfinite(found[masked]).all()
