"""Optimizers against NumPy loops written from the papers; schedules by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxalign.errors import UserError
from jaxalign.train.optimizers import decayed, make_optimizer, make_schedule, rates_of


def run(optimizer, params, gradients):
    """Parameters after all gradients, in float64."""
    state = optimizer.init(params)
    for gradient in gradients:
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return params


@pytest.fixture
def gradients():
    rng = np.random.default_rng(0)
    return [{"kernel": jnp.array(rng.normal(size=(3, 2)))} for _ in range(5)]


def test_adamw_against_its_algorithm(x64, gradients):
    w = np.full((3, 2), 2.0)
    optimizer = make_optimizer(
        learning_rate=0.1,
        schedule="constant",
        total_steps=5,
        weight_decay=0.3,
        max_grad_norm=None,
        b1=0.8,
        b2=0.9,
        eps=1e-3,
    )
    result = run(optimizer, {"kernel": jnp.array(w)}, gradients)["kernel"]
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t, gradient in enumerate(gradients, start=1):
        g = np.asarray(gradient["kernel"])
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g**2
        m_hat, v_hat = m / (1 - 0.8**t), v / (1 - 0.9**t)
        w = w - 0.1 * (m_hat / (np.sqrt(v_hat) + 1e-3) + 0.3 * w)
    np.testing.assert_allclose(result, w, rtol=1e-12)


def test_rmsprop_against_its_algorithm(x64, gradients):
    w = np.full((3, 2), 2.0)
    optimizer = make_optimizer(
        name="rmsprop", learning_rate=0.1, total_steps=5, max_grad_norm=None, b2=0.99, eps=1e-3
    )
    result = run(optimizer, {"kernel": jnp.array(w)}, gradients)["kernel"]
    v = np.zeros_like(w)
    for gradient in gradients:
        g = np.asarray(gradient["kernel"])
        v = 0.99 * v + 0.01 * g**2
        w = w - 0.1 * g / (np.sqrt(v) + 1e-3)
    np.testing.assert_allclose(result, w, rtol=1e-12)


def test_only_matrices_decay():
    params = {
        "embed": {"embedding": np.ones((4, 2))},
        "dense": {"kernel": np.ones((2, 3)), "bias": np.ones(3)},
        "layers": {"kernel": np.ones((5, 2, 3)), "bias": np.ones((5, 3)), "scale": np.ones((5, 3))},
    }
    assert decayed(params) == {
        "embed": {"embedding": True},
        "dense": {"kernel": True, "bias": False},
        "layers": {"kernel": True, "bias": False, "scale": False},
    }
    optimizer = make_optimizer(learning_rate=0.1, total_steps=1, weight_decay=0.5)
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    result = run(optimizer, params, [{"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)}])
    np.testing.assert_allclose(result["kernel"], np.full((2, 2), 1 - 0.1 * 0.5), rtol=1e-6)
    np.testing.assert_array_equal(result["bias"], 1)


@pytest.mark.parametrize(("norm", "factor"), [(None, 1), (10.0, 1), (2.5, 0.5)])
def test_clipping_by_the_norm_of_everything(norm, factor):
    # |(3, 0), (0, 4)| = 5. With b1 = 0 the first moment is the clipped gradient, kept in the state.
    optimizer = make_optimizer(learning_rate=1.0, total_steps=1, max_grad_norm=norm, b1=0.0)
    gradient = {"a": jnp.array([3.0, 0.0]), "b": jnp.array([0.0, 4.0])}
    _, state = optimizer.update(gradient, optimizer.init(gradient), gradient)
    mu = optax.tree.get(state, "mu")
    np.testing.assert_allclose(mu["a"], np.array([3, 0]) * factor)
    np.testing.assert_allclose(mu["b"], np.array([0, 4]) * factor)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [  # by hand: peak 8, warm-up 2 of 6 steps; then 4 steps down (cosine: 4 (1 + cos(pi k / 4)))
        ("constant", [4, 8, 8, 8, 8, 8, 8]),
        ("linear", [4, 8, 8, 6, 4, 2, 0]),
        ("cosine", [4, 8, 8, 4 + 8**0.5, 4, 4 - 8**0.5, 0]),
    ],
)
def test_schedules_by_hand(schedule, expected):
    rate = make_schedule(learning_rate=8.0, schedule=schedule, warmup_steps=2, total_steps=6)
    rates = [float(rate(step)) for step in range(7)]
    np.testing.assert_allclose(rates, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_a_compiled_step_serves_every_rate_and_length_of_a_run(schedule):
    """It is told the numbers of the schedule, and gives the bits of optax's schedules, in which
    they are constants; its program does not depend on them."""
    rest = {"schedule": schedule, "max_grad_norm": None}
    gradient = {"a": jnp.array([[1.0, 0.3], [7.7, -2.0]], jnp.float32)}
    programs = set()
    for peak, warmup, total in ((1e-5, 2, 12), (3e-4, 0, 40), (0.123, 1, 7), (0.7, 7, 7)):
        run = {"learning_rate": peak, "warmup_steps": warmup, "total_steps": total}
        optimizer = make_optimizer(**run, **rest, name="rmsprop", b2=0.5)
        falling = max(total - warmup, 1)
        after = {
            "constant": optax.constant_schedule(peak),
            "linear": optax.linear_schedule(peak, 0.0, falling),
            "cosine": optax.cosine_decay_schedule(peak, falling),
        }[schedule]
        first = optax.linear_schedule(peak / max(warmup, 1), peak, warmup - 1)
        theirs = optax.chain(
            optax.scale_by_rms(decay=0.5, eps=1e-8, eps_in_sqrt=False),
            optax.scale_by_learning_rate(optax.join_schedules([first, after], [warmup])),
        )
        told = jax.jit(lambda state, rates, ours=optimizer: ours.update(
            gradient, state, gradient, rates=rates))  # fmt: skip
        expected = jax.jit(lambda state, theirs=theirs: theirs.update(gradient, state, gradient))
        state, other = optimizer.init(gradient), theirs.init(gradient)
        programs.add(told.lower(state, rates_of(**run)).as_text())
        for _ in range(total):
            update, state = told(state, rates_of(**run))
            wanted, other = expected(other)
            np.testing.assert_array_equal(update["a"], wanted["a"])
    assert len(programs) == 1


def test_no_warm_up_and_nothing_but_warm_up():
    plain = make_schedule(learning_rate=3.0, schedule="linear", warmup_steps=0, total_steps=3)
    np.testing.assert_allclose([plain(step) for step in range(4)], [3, 2, 1, 0], atol=1e-6)
    rising = make_schedule(learning_rate=3.0, schedule="cosine", warmup_steps=3, total_steps=3)
    np.testing.assert_allclose([rising(step) for step in range(3)], [1, 2, 3], rtol=1e-6)


def test_user_errors():
    with pytest.raises(UserError, match=r"^optimizer 'adam' is unknown; use one of adamw, rmsprop"):
        make_optimizer(learning_rate=1.0, total_steps=1, name="adam")
    with pytest.raises(UserError, match=r"^schedule 'step' is unknown; use one of constant"):
        make_optimizer(learning_rate=1.0, total_steps=1, schedule="step")
    with pytest.raises(UserError, match=r"^warmup_steps 5 exceeds total_steps 4; shorten"):
        make_optimizer(learning_rate=1.0, total_steps=4, warmup_steps=5)


def test_muon_makes_updates_of_block_matrices_orthogonal():
    """A gradient of any singular values becomes one whose singular values are all near 1.

    The quintic iteration is tuned to land in [0.7, 1.2], not at 1 (Jordan et al. 2024).
    """
    rng = np.random.default_rng(0)
    gradient = jnp.array(rng.normal(size=(4, 4)) * [[100.0], [1.0], [1.0], [0.1]])
    params = {"layers_0": {"kernel": 0 * gradient}, "embedding": 0 * gradient}
    optimizer = make_optimizer(
        name="muon", learning_rate=1.0, total_steps=1, max_grad_norm=None, eps=0.0
    )
    gradients = {"layers_0": {"kernel": gradient}, "embedding": gradient}
    result = run(optimizer, params, [gradients])
    singular = np.linalg.svd(-np.asarray(result["layers_0"]["kernel"]), compute_uv=False)
    assert np.all((singular > 0.6) & (singular < 1.3))
    assert np.linalg.cond(gradient) > 100
    assert np.sum(np.asarray(result["layers_0"]["kernel"]) * np.asarray(gradient)) < 0
    # Adam's first step is the sign of the gradient, here times its share.
    np.testing.assert_allclose(result["embedding"], -0.2 * np.sign(gradient), rtol=1e-5)


@pytest.mark.slow
def test_muon_takes_a_scanned_stack_layer_by_layer():
    gradient = jnp.array(np.random.default_rng(0).normal(size=(2, 3, 3)))
    optimizer = make_optimizer(name="muon", learning_rate=1.0, total_steps=1)
    stacked = run(optimizer, {"stack": {"kernel": 0 * gradient}}, [{"stack": {"kernel": gradient}}])
    for layer in range(2):
        params = {"layers_0": {"kernel": jnp.zeros((3, 3))}}
        single = run(optimizer, params, [{"layers_0": {"kernel": gradient[layer]}}])
        np.testing.assert_allclose(
            stacked["stack"]["kernel"][layer], single["layers_0"]["kernel"], atol=1e-5
        )
