"""One update: by hand, in parts, from nothing; and the sums that it is made of."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, PartitionSpec

from jaxalign.errors import UserError
from jaxalign.train.loop import mean_metrics
from jaxalign.train.step import TrainState, initial_state, loss_sums, train_step

pytestmark = pytest.mark.compiled


def squares(params, batch, key):
    """sum_i m_i (w x_i - y_i)^2, weight sum_i m_i."""
    errors = jnp.where(batch["mask"], batch["x"] @ params["w"] - batch["y"], 0)
    return jnp.sum(errors**2), (jnp.sum(batch["mask"]), {"error": jnp.sum(jnp.abs(errors))})


def regression(rows: int, seed: int = 0) -> dict:
    rng = np.random.default_rng(seed)
    return {
        "x": rng.normal(size=(rows, 3)),
        "y": rng.normal(size=rows),
        "mask": rng.random(rows) < 0.4,
    }


def squares_gradient(w, batch):
    """d/dw of the mean over unmasked rows, in NumPy: 2 sum_i m_i (w x_i - y_i) x_i / sum_i m_i."""
    errors = batch["mask"] * (batch["x"] @ w - batch["y"])
    return 2 * errors @ batch["x"] / batch["mask"].sum()


def test_update_by_hand():
    # rows (x, y) = (1, 0), (2, 1), and a masked one; w = 1. Errors 1, 1; loss (1 + 1) / 2 = 1.
    # gradient (2 1 1 + 2 1 2) / 2 = 3; rate 0.1: w = 1 - 0.3.
    batch = {
        "x": np.array([[1.0], [2.0], [9.0]]),
        "y": np.array([0.0, 1.0, 5.0]),
        "mask": np.array([True, True, False]),
    }
    optimizer = optax.sgd(0.1)
    state = initial_state({"w": jnp.ones(1)}, optimizer, jax.random.key(0))
    state, metrics = train_step(state, batch, loss_fn=squares, optimizer=optimizer)
    assert state.step == 1
    np.testing.assert_allclose(state.params["w"], [0.7], rtol=1e-6)
    assert metrics == {"loss": 1, "error": 1, "grad_norm": 3}


@pytest.mark.parametrize("micro_batches", [1, 2, 3, 8, 24])
def test_parts_of_a_ragged_batch_give_the_gradient_of_the_whole(x64, micro_batches):
    batch = regression(24)
    batch["mask"][:8] = False  # some of the parts have no weight at all
    w = np.array([0.3, -1.0, 2.0])
    optimizer = optax.sgd(1.0)
    state = initial_state({"w": jnp.array(w)}, optimizer, jax.random.key(0))
    step = functools.partial(train_step, loss_fn=squares, optimizer=optimizer)
    state, _ = jax.jit(functools.partial(step, micro_batches=micro_batches))(state, batch)
    # a sum of n <= 24 terms in any order is off by at most (n - 1) u sum |terms|, u = 1.1e-16
    np.testing.assert_allclose(w - state.params["w"], squares_gradient(w, batch), atol=1e-13)


def test_parts_must_be_equal():
    optimizer = optax.sgd(1.0)
    state = initial_state({"w": jnp.ones(3)}, optimizer, jax.random.key(0))
    with pytest.raises(UserError, match=r"^10 rows on a device .* 4 micro-batches; .*multiple"):
        train_step(state, regression(10), loss_fn=squares, optimizer=optimizer, micro_batches=4)


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_a_batch_of_nothing_changes_nothing(micro_batches):
    optimizer = optax.adamw(0.1, weight_decay=0.5)
    state = initial_state({"w": jnp.ones(3)}, optimizer, jax.random.key(0))
    step = functools.partial(
        train_step, loss_fn=squares, optimizer=optimizer, micro_batches=micro_batches
    )
    state, _ = step(state, regression(4))  # now there is momentum
    nothing = regression(4) | {"mask": np.zeros(4, bool)}
    after, metrics = step(state, nothing)
    before = (state.params, state.opt_state)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, (after.params, after.opt_state), before))
    assert metrics == {"loss": 0, "error": 0, "grad_norm": 0}
    assert after.step == state.step + 1


def test_noise_changes_with_the_step_and_the_key_does_not():
    def noise(params, batch, key):
        return params["w"] * jax.random.normal(key), (jnp.float32(1), {})

    optimizer = optax.sgd(0.0)
    state = initial_state({"w": jnp.float32(1)}, optimizer, jax.random.key(7))
    losses = []
    for _ in range(3):
        state, metrics = train_step(state, {}, loss_fn=noise, optimizer=optimizer)
        losses.append(float(metrics["loss"]))
    expected = [jax.random.normal(jax.random.fold_in(jax.random.key(7), i)) for i in range(3)]
    np.testing.assert_allclose(losses, expected, rtol=1e-6)
    assert state.key == jax.random.key(7)


def test_low_precision_sums_do_not_saturate():
    # in bfloat16 256 + 1 = 256: a sum over five hundred parts of one row would be 256
    def count(params, batch, key):
        ones = jnp.ones(len(batch), jnp.bfloat16)
        return jnp.sum(ones * params), (jnp.float32(len(batch)), {"rows": jnp.sum(ones)})

    optimizer = optax.sgd(1.0)
    state = initial_state(jnp.bfloat16(0), optimizer, jax.random.key(0))
    step = functools.partial(train_step, loss_fn=count, optimizer=optimizer, micro_batches=500)
    state, metrics = jax.jit(step)(state, np.zeros(500))
    assert (state.params, metrics["rows"]) == (-1, 1)
    assert state.params.dtype == jnp.bfloat16


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_the_checked_form_of_shard_map(x64, micro_batches):
    """With `check_vma` the gradient of a *replicated* value comes summed already; ours must not."""
    batch, w, optimizer = regression(16), np.array([0.3, -1.0, 2.0]), optax.sgd(1.0)
    state = initial_state({"w": jnp.array(w)}, optimizer, jax.random.key(0))
    step = functools.partial(
        train_step,
        loss_fn=squares,
        optimizer=optimizer,
        axis_name="data",
        micro_batches=micro_batches,
    )
    mesh = Mesh(np.array(jax.devices()), ("data",))
    specs = (PartitionSpec(), PartitionSpec("data"))
    mapped = jax.shard_map(
        step, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(), check_vma=True
    )
    state, _ = jax.jit(mapped)(state, batch)
    np.testing.assert_allclose(w - state.params["w"], squares_gradient(w, batch), atol=1e-13)


def centred(params, batch, key, statistics, measured):
    """sum_i m_i (e_i - c)^2, e_i = w x_i - y_i; c: their mean in the whole batch, plus a shift."""
    errors = jnp.where(batch["mask"], batch["x"] @ params["w"] - batch["y"], 0)
    total, weight = measured
    centre = total / weight + statistics
    losses = jnp.where(batch["mask"], (errors - centre) ** 2, 0)
    weight = jnp.sum(batch["mask"])
    metrics = {"centre": centre * weight, "error": (jnp.sum(errors), weight)}
    return jnp.sum(losses), (weight, metrics)


def errors_and_weight(params, batch, key):
    errors = jnp.where(batch["mask"], batch["x"] @ params["w"] - batch["y"], 0)
    return jnp.sum(errors), jnp.sum(batch["mask"])


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("micro_batches", [1, 3])
def test_what_is_measured_is_of_the_whole_batch_and_constant(x64, devices, micro_batches):
    batch, w, optimizer = regression(48), np.array([0.3, -1.0, 2.0]), optax.sgd(1.0)
    state = initial_state(
        {"w": jnp.array(w)}, optimizer, jax.random.key(0), statistics=jnp.float64(0.5)
    )
    step = functools.partial(
        train_step,
        loss_fn=centred,
        optimizer=optimizer,
        micro_batches=micro_batches,
        track=lambda statistics, metrics: statistics + metrics["error"][0] / metrics["error"][1],
        measure=errors_and_weight,
    )
    if devices > 1:
        mesh = Mesh(np.array(jax.devices()), ("data",))
        specs = (PartitionSpec(), PartitionSpec("data"))
        step = functools.partial(step, axis_name="data")
        step = jax.shard_map(step, mesh=mesh, in_specs=specs, out_specs=PartitionSpec())
    state, _ = jax.jit(step)(state, batch)
    x, y = batch["x"][batch["mask"]], batch["y"][batch["mask"]]
    errors = x @ w - y
    centre = errors.mean() + 0.5
    # through the mean as well it would be 2 mean_i (e_i - c) (x_i - mean x)
    gradient = 2 * (errors - centre) @ x / len(x)
    np.testing.assert_allclose(w - state.params["w"], gradient, atol=1e-13)
    np.testing.assert_allclose(state.statistics, centre, atol=1e-13)


def test_mean_metrics_weigh_rows_not_batches(x64):
    batches = [regression(6, seed) for seed in range(3)]
    batches[1]["mask"][:] = False
    whole = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    w = np.array([0.3, -1.0, 2.0])
    errors = (whole["x"] @ w - whole["y"])[whole["mask"]]
    sums = functools.partial(loss_sums, loss_fn=squares)
    metrics = mean_metrics(sums, ({"w": w}, jax.random.key(0)), batches)
    assert metrics == pytest.approx({"loss": np.mean(errors**2), "error": np.mean(abs(errors))})


def test_mean_metrics_of_nothing():
    nothing = regression(4) | {"mask": np.zeros(4, bool)}
    sums = functools.partial(loss_sums, loss_fn=squares)
    with pytest.raises(UserError, match=r"^nothing to evaluate"):
        mean_metrics(sums, ({"w": jnp.ones(3)}, jax.random.key(0)), [nothing])


def test_the_state_is_a_pytree_of_its_fields():
    state = initial_state({"w": jnp.ones(3)}, optax.sgd(1.0), jax.random.key(0))
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)]
    assert paths == [".step", ".params['w']", ".key"]
    assert isinstance(jax.tree.map(lambda leaf: leaf, state), TrainState)
