"""Every public function against an independent oracle, in every precision and at extremes."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxalign
from tests.specimens.collection import MODULES, SPECIMENS
from tests.specimens.specimen import SEEDS, cast, real

each_function = pytest.mark.parametrize("name", SPECIMENS)


def same(ours, expected, **close):
    """Equal trees; an entry that is infinite in the one is infinite in the other."""
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True)
    for one, other in pairs:
        np.testing.assert_allclose(one, np.asarray(other, float), **close)


def test_every_public_function_has_a_specimen():
    exported = {name: getattr(jaxalign, name) for name in jaxalign.__all__}
    functions = {n for n, x in exported.items() if callable(x) and not inspect.isclass(x)}
    assert functions == set(SPECIMENS)
    assert sum(len(module.SPECIMENS) for module in MODULES) == len(SPECIMENS)  # no name twice


@each_function
def test_against_the_oracle(x64, name):
    """float64 to 1e-10, the result's tree and shapes included."""
    specimen = SPECIMENS[name]
    draws = [specimen.arguments(seed) for seed in SEEDS]
    if specimen.extremes:
        draws.append(specimen.extremes(np.random.default_rng(2)))
    for settings in specimen.settings:
        for arguments in draws:
            expected = specimen.expected(arguments, **settings)
            same(specimen(arguments, **settings), expected, rtol=1e-10, atol=1e-10)


def error_bounds(specimen, arguments, settings):
    """First-order bounds of the rounding of a float32 computation, from the oracle's own slopes.

    2^-24 for each of some 32 operations, on every number that goes in and on the result.
    """

    def results(leaves):
        found = specimen.expected(jax.tree.unflatten(tree, leaves), **settings)
        return [np.asarray(x, float) for x in jax.tree.leaves(found)]

    leaves, tree = jax.tree.flatten(arguments)
    values = results(leaves)
    sizes = [np.abs(value) for value in values]
    for place, leaf in enumerate(leaves):
        for at in np.ndindex(np.shape(leaf)) if real(leaf) else ():
            moved = np.array(leaf)
            moved[at] += 1e-6 * abs(moved[at])
            others = results([moved if i == place else x for i, x in enumerate(leaves)])
            sizes = [
                size + np.abs(other - value) / 1e-6
                for size, other, value in zip(sizes, others, values, strict=True)
            ]
    return [32 * 2**-24 * size for size in sizes]


@each_function
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_low_precision(name, dtype):
    """Inputs of 8 bits are widened, not computed with: the result is that of float32."""
    specimen = SPECIMENS[name]
    settings, narrow = specimen.settings[-1], cast(specimen.arguments(), dtype)
    wide = jax.tree.map(
        lambda x: np.asarray(x, np.float64) if real(x) else x, cast(narrow, "float32")
    )
    ours = specimen(narrow, **settings)
    for leaf in jax.tree.leaves(ours):
        wanted = jnp.float32 if specimen.widens else jnp.dtype(dtype)
        assert leaf.dtype == wanted or not jnp.issubdtype(leaf.dtype, jnp.floating)
    expected = jax.tree.leaves(specimen.expected(wide, **settings))
    bounds = error_bounds(specimen, wide, settings)
    for one, other, bound in zip(jax.tree.leaves(ours), expected, bounds, strict=True):
        assert np.shape(one) == np.shape(other)
        assert (np.abs(np.asarray(one, float) - np.asarray(other, float)) <= bound).all()


@each_function
def test_integers_are_not_truncated(name):
    """Whole numbers given as integers mean the same as given as floats."""
    specimen = SPECIMENS[name]
    whole = jax.tree.map(lambda x: np.rint(x) if real(x) else x, specimen.arguments())
    integers = jax.tree.map(
        lambda x: x.astype(np.int32) if real(x) and np.isfinite(x).all() else x, whole
    )
    for settings in specimen.settings:
        floats = specimen(cast(whole, "float32"), **settings)
        same(specimen(integers, **settings), floats, rtol=1e-6, atol=1e-6)


@each_function
def test_shapes_must_agree(name):
    """An argument with a row less than the others is refused when it is traced."""
    specimen = SPECIMENS[name]
    arguments = specimen.arguments()
    rows = {name: x for name, x in arguments.items() if name not in specimen.shared}
    leaves, tree = jax.tree.flatten(rows)
    for i in range(len(leaves)) if len(leaves) > 1 else ():
        cut = [leaf[:-1] if j == i else leaf for j, leaf in enumerate(leaves)]
        wrong = arguments | jax.tree.unflatten(tree, cut)
        with pytest.raises(AssertionError):
            jax.eval_shape(functools.partial(specimen, wrong, **specimen.settings[0]))


# What these do they do for every entry by itself: an axis more changes no number.
OF_ENTRIES = {
    *("dpo_loss", "robust_dpo_loss", "ipo_loss", "averaged_ipo_loss", "hinge_loss", "f_dpo_loss"),
    *("exo_pair_loss", "nca_pair_loss", "bco_pair_loss", "sppo_hard_loss", "discopop_loss"),
    *("apo_zero_loss", "apo_down_loss", "apo_zero_unpaired_loss", "length_normalised_dpo_loss"),
    *("simpo_loss", "alphapo_loss", "cpo_loss", "orpo_loss", "tpo_loss", "tpo_l_loss", "kto_loss"),
    *("bco_loss", "density_ratios", "kto_kl", "wpo_weights", "per_token", "log_ratios", "ranked"),
    *("implicit_rewards", "no_reference", "xpo_loss", "nash_md_loss", "top_entropy_mask"),
    *("shift_right", "missing_eos_penalty"),
}
FIXED = [
    name
    for name, specimen in SPECIMENS.items()
    if "[..." not in (specimen.function.__doc__ or "")
    and name not in OF_ENTRIES
    and set(specimen.arguments()) - set(specimen.shared)
]


@pytest.mark.parametrize("name", FIXED)
def test_an_axis_more_is_refused(name):
    """It would be summed or sorted along the wrong one."""
    specimen = SPECIMENS[name]
    deeper = specimen.on_rows(lambda x: np.asarray(x)[..., None], specimen.arguments())
    with pytest.raises(AssertionError):
        jax.eval_shape(functools.partial(specimen, deeper, **specimen.settings[0]))


def test_weights_of_rewards_are_a_vector():
    with pytest.raises(AssertionError):
        jaxalign.weighted_scores(np.ones((2, 3)), np.ones((2, 1)))


INVALID = [(name, *case) for name, specimen in SPECIMENS.items() for case in specimen.invalid]


@pytest.mark.parametrize(("name", "settings", "message"), INVALID)
def test_bad_settings_are_refused(name, settings, message):
    specimen = SPECIMENS[name]
    with pytest.raises(ValueError) as error:
        specimen(cast(specimen.arguments(), "float32"), **settings)
    assert str(error.value).startswith(message)
