"""Parameters that a step reads and leaves alone: no gradient, and no place in checkpoints."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxalign.errors import UserError
from jaxalign.layouts.choice import make_layout
from jaxalign.train.checkpoints import Checkpoints
from jaxalign.train.step import initial_state, train_step

RATE, STEPS = 0.1, 3


def squares(params, batch, key, measured=None):
    """sum_i (head . (x_i trunk) - y_i)^2; with `measured`, y_i less that."""
    y = batch["y"] if measured is None else batch["y"] - measured
    errors = batch["x"] @ params["trunk"] @ params["head"] - y
    return jnp.sum(errors**2), (jnp.float32(len(errors)), {})


def parameters():
    rng = np.random.default_rng(0)
    return {"head": rng.normal(size=4)}, {"trunk": rng.normal(size=(8, 4))}


def regression(number: int) -> dict:
    rng = np.random.default_rng(number)
    return {"x": rng.normal(size=(16, 8)), "y": rng.normal(size=16)}


def by_hand() -> np.ndarray:
    """Gradient descent on the head: 2 / N (x W)^T (x W h - y)."""
    head, trunk = (np.array(*tree.values()) for tree in parameters())
    for number in range(STEPS):
        batch = regression(number)
        hidden = batch["x"] @ trunk
        head = head - RATE * 2 / 16 * hidden.T @ (hidden @ head - batch["y"])
    return head


@pytest.mark.parametrize("place", [("device", 1), ("pmap", 8), ("shards", 8), ("mesh", 8)])
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_only_the_head_learns_wherever_it_runs(x64, place, micro_batches):
    traces = []

    def counted(params, batch, key):
        traces.append(1)
        return squares(params, batch, key)

    layout = make_layout(place[0], devices=place[1])
    optimizer = optax.sgd(RATE)
    step = functools.partial(train_step, loss_fn=counted, optimizer=optimizer)
    step = layout.step(functools.partial(step, micro_batches=micro_batches))
    trained, frozen = parameters()
    state = layout.place(initial_state(trained, optimizer, jax.random.key(0), frozen=frozen))
    seen = []
    for number in range(STEPS):
        state, metrics = step(state, regression(number))
        seen.append(len(traces))
    assert seen == seen[:1] * STEPS  # one compilation
    np.testing.assert_allclose(state.params["head"], by_hand(), rtol=1e-12)
    np.testing.assert_array_equal(state.frozen["trunk"], frozen["trunk"])
    assert state.all_params.keys() == {"trunk", "head"}
    assert float(metrics["grad_norm"]) > 0


def test_the_optimizer_knows_only_what_is_trained():
    trained, frozen = parameters()
    state = initial_state(trained, optax.adam(0.1), jax.random.key(0), frozen=frozen)
    shapes = sorted(np.shape(leaf) for leaf in jax.tree.leaves(state.opt_state))
    assert shapes == [(), (4,), (4,)]  # count and two moments
    with pytest.raises(UserError, match="parameter head is among the trained and the frozen ones"):
        initial_state(trained, optax.adam(0.1), jax.random.key(0), frozen=trained)


def test_frozen_memory_is_handed_on():
    optimizer, layout = optax.sgd(RATE), make_layout("device")
    step = layout.step(functools.partial(train_step, loss_fn=squares, optimizer=optimizer))
    trained, frozen = jax.tree.map(np.float32, parameters())
    state = layout.place(initial_state(trained, optimizer, jax.random.key(0), frozen=frozen))
    where = state.frozen["trunk"].unsafe_buffer_pointer()
    for number in range(2):
        state, _ = step(state, jax.tree.map(np.float32, regression(number)))
    assert state.frozen["trunk"].unsafe_buffer_pointer() == where


def test_measures_read_frozen_parameters_too(x64):
    """The measure is the sum of all hidden numbers; the loss then has another target."""
    trained, frozen = parameters()
    optimizer, batch = optax.sgd(RATE), regression(0)

    def hidden_sum(params, rows, key):
        return jnp.sum(rows["x"] @ params["trunk"])

    state = initial_state(trained, optimizer, jax.random.key(0), frozen=frozen)
    step = functools.partial(train_step, loss_fn=squares, optimizer=optimizer, measure=hidden_sum)
    state, _ = jax.jit(functools.partial(step, micro_batches=4))(state, batch)
    hidden = batch["x"] @ frozen["trunk"]
    errors = hidden @ trained["head"] - (batch["y"] - hidden.sum())
    expected = trained["head"] - RATE * 2 / 16 * hidden.T @ errors
    np.testing.assert_allclose(state.params["head"], expected, rtol=1e-12)


def a_state(head: float, trunk):
    params = {"head": jnp.full(4, head)}
    frozen = {"trunk": trunk}
    return initial_state(params, optax.adam(0.1), jax.random.key(0), frozen=frozen)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_checkpoints_leave_frozen_parameters_out(tmp_path, dtype):
    trunk = (jnp.arange(4096) % 100).reshape(8, 512).astype(dtype)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(3, a_state(1.0, trunk))
    template = a_state(0.0, trunk)
    step, restored = checkpoints.restore(template)
    assert step == 3
    np.testing.assert_array_equal(restored.params["head"], np.ones(4))
    assert restored.frozen["trunk"] is template.frozen["trunk"]
    stored = json.loads((tmp_path / "3" / "manifest.json").read_text())["manifest"]
    assert [name for name, *_ in stored["leaves"] if "trunk" in name] == []
    for other in (trunk.at[3, 5].add(1), trunk[::-1], jnp.zeros_like(trunk)):
        with pytest.raises(UserError, match="was made beside other frozen parameters"):
            checkpoints.restore(a_state(0.0, other))
    with pytest.raises(UserError, match="was made beside other frozen parameters"):
        checkpoints.restore(initial_state(template.params, optax.adam(0.1), jax.random.key(0)))
    checkpoints.close()
