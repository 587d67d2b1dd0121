"""The same update wherever it runs: devices x layouts x micro-batches against a loop over rows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxalign.errors import UserError
from jaxalign.layouts.choice import make_layout
from jaxalign.layouts.layout import pad_rows, trim_rows
from jaxalign.layouts.mesh import fsdp_spec
from jaxalign.train.step import initial_state, loss_sums, train_step

B, T, V, D = 32, 6, 11, 8
RATE, MOMENTUM, STEPS = 0.1, 0.9, 3
PLACES = [("device", 1), *[(name, n) for name in ("pmap", "shards", "mesh") for n in (1, 2, 8)]]
SEVERAL = [("device", 1), ("pmap", 8), ("shards", 8), ("mesh", 8)]


def row_loss(params, tokens, mask, index, key):
    """Next-token loss of one sequence whose embeddings get noise of its own."""
    noise = 0.3 * jax.random.normal(jax.random.fold_in(key, index), (T, D))
    hidden = params["embedding"][tokens] + noise.astype(params["embedding"].dtype)
    logps = jax.nn.log_softmax(hidden @ params["kernel"] + params["bias"][None])
    token_logps = jnp.take_along_axis(logps, jnp.roll(tokens, -1)[:, None], axis=1)[:, 0]
    return -jnp.sum(jnp.where(mask, token_logps, 0))


def loss_fn(params, batch, key):
    rows = jax.vmap(row_loss, in_axes=(None, 0, 0, 0, None))
    losses = rows(params, batch["tokens"], batch["mask"], batch["index"], key)
    weight = jnp.sum(batch["mask"])
    return jnp.sum(losses), (weight, {"long": jnp.sum(jnp.sum(batch["mask"], axis=1) > 3)})


def parameters() -> dict:
    rng = np.random.default_rng(0)
    shapes = {"embedding": (V, D), "kernel": (D, V), "bias": (V,)}
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


def ragged_batch(number: int) -> dict:
    rng = np.random.default_rng(number)
    lengths = rng.integers(0, T + 1, B)
    lengths[:9] = 0  # nothing at all for the first of eight devices
    return {
        "tokens": rng.integers(0, V, (B, T)).astype(np.int32),
        "mask": np.arange(T) < lengths[:, None],
        "index": rng.permutation(B).astype(np.int32),
    }


@pytest.fixture(scope="module")
def reference() -> list[dict]:
    """Parameters after each step of SGD with momentum: one row at a time, sums in NumPy."""
    with jax.enable_x64(True):
        gradient = jax.jit(jax.grad(row_loss))
        params, key = parameters(), jax.random.key(3)
        velocity = {name: np.zeros_like(value) for name, value in params.items()}
        history = []
        for number in range(STEPS):
            batch, step_key = ragged_batch(number), jax.random.fold_in(key, number)
            total = {name: np.zeros_like(value) for name, value in params.items()}
            for tokens, mask, index in zip(
                batch["tokens"], batch["mask"], batch["index"], strict=True
            ):
                row = gradient(params, tokens, mask, index, step_key)
                total = {name: total[name] + np.asarray(row[name]) for name in total}
            weight = batch["mask"].sum()
            for name in params:
                velocity[name] = MOMENTUM * velocity[name] + total[name] / weight
                params[name] = params[name] - RATE * velocity[name]
            history.append(dict(params))
        return history


@pytest.mark.slow
@pytest.mark.parametrize("micro_batches", [1, 2, 4])
@pytest.mark.parametrize(("name", "devices"), PLACES)
def test_same_update_everywhere(x64, reference, name, devices, micro_batches):
    # A gradient is a sum of n = B T = 192 terms over the weight, in any order off by at most
    # 2 n u max|term|; max|term| < 20 (hidden times probability differences) and u = 1.1e-16 give
    # 1e-12. Three steps of rate 0.1 with momentum multiply that by less than 1.
    layout = make_layout(name, devices=devices)
    optimizer = optax.sgd(RATE, momentum=MOMENTUM)
    step = layout.step(
        functools.partial(
            train_step, loss_fn=loss_fn, optimizer=optimizer, micro_batches=micro_batches
        )
    )
    params = jax.tree.map(jnp.asarray, parameters())
    state = layout.place(initial_state(params, optimizer, jax.random.key(3)))
    for number in range(STEPS):
        batch = ragged_batch(number)
        state, metrics = step(state, batch)
        weight, long = batch["mask"].sum(), (batch["mask"].sum(axis=1) > 3).sum()
        np.testing.assert_allclose(metrics["long"], long / weight, rtol=1e-12)
        for leaf, expected in reference[number].items():
            np.testing.assert_allclose(state.params[leaf], expected, rtol=0, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "devices"), SEVERAL)
def test_one_trace_over_many_steps(name, devices):
    """And the state keeps its shardings, and the parameters it began from stay usable."""
    traces = []

    def counted(params, batch, key):
        traces.append(1)
        return loss_fn(params, batch, key)

    layout, optimizer = make_layout(name, devices=devices), optax.adam(1e-2)
    step = layout.step(functools.partial(train_step, loss_fn=counted, optimizer=optimizer))
    params = jax.tree.map(jnp.float32, parameters())
    state = layout.place(initial_state(params, optimizer, jax.random.key(0)))
    before = jax.tree.map(lambda leaf: leaf.sharding, state)
    for number in range(10):
        state, _ = step(state, ragged_batch(number))
    assert len(traces) == 1
    assert jax.tree.map(lambda leaf: leaf.sharding, state) == before
    np.testing.assert_array_equal(params["kernel"], np.float32(parameters()["kernel"]))


@pytest.mark.parametrize(("name", "devices"), SEVERAL)
def test_sums_are_global(x64, name, devices):
    layout, batch = make_layout(name, devices=devices), ragged_batch(0)
    sums = layout.sums(functools.partial(loss_sums, loss_fn=loss_fn))
    params, key = parameters(), jax.random.key(3)
    weight, metrics = sums((params, key), batch)
    one_row = jax.jit(row_loss)
    rows = [
        float(one_row(params, *row, key))
        for row in zip(batch["tokens"], batch["mask"], batch["index"], strict=True)
    ]
    assert weight == batch["mask"].sum()
    np.testing.assert_allclose(metrics["loss"], sum(rows), rtol=1e-12)


@pytest.mark.parametrize(("name", "devices"), SEVERAL)
def test_rows_come_back_in_order(name, devices):
    def fn(shared, batch):
        scale, key = shared
        noise = jax.vmap(lambda i: jax.random.bits(jax.random.fold_in(key, i)))(batch["index"])
        return {"scaled": scale * batch["tokens"], "noise": (noise,)}

    layout, batch, key = make_layout(name, devices=devices), ragged_batch(0), jax.random.key(1)
    out = layout.rows(fn)((jnp.float32(2), key), batch)
    assert isinstance(out["scaled"], np.ndarray)
    np.testing.assert_array_equal(out["scaled"], 2 * batch["tokens"])
    expected = [jax.random.bits(jax.random.fold_in(key, i)) for i in batch["index"]]
    np.testing.assert_array_equal(out["noise"][0], expected)


@pytest.mark.parametrize(("name", "devices"), SEVERAL)
def test_arrays_from_elsewhere_are_moved(name, devices):
    """Batches that another program left replicated on all devices, parameters on another device."""
    layout = make_layout(name, devices=devices)
    everywhere = NamedSharding(Mesh(np.array(jax.devices()), ("all",)), PartitionSpec())
    batch = jax.device_put(ragged_batch(0), everywhere)
    params = jax.device_put(jax.tree.map(np.float32, parameters()), jax.devices()[3])
    out = layout.rows(lambda params, batch: params["bias"][batch["tokens"]])(params, batch)
    np.testing.assert_array_equal(out, np.float32(parameters()["bias"])[batch["tokens"]])


def test_a_step_overwrites_only_the_copy_that_was_placed():
    layout = make_layout("device")
    memory = np.zeros(64 + 16, np.float32)
    start = -memory.ctypes.data % 64 // 4  # from there on a processor would take it as it is
    tree = {"aligned": memory[start : start + 64], "odd": memory[start + 1 : start + 64]}
    tree |= {"there": jnp.zeros(64), "key": jax.random.key(0), "number": np.float32(0)}
    step = layout.step(lambda state, batch, axis_name: ({**state, **_added(state)}, batch["x"][0]))
    state, _ = step(layout.place(tree), {"x": np.ones((1, 1), np.float32)})
    for name in ("aligned", "odd", "there", "number"):
        assert (np.asarray(tree[name]) == 0).all() and (np.asarray(state[name]) == 1).all()
    assert jax.random.key_data(tree["key"]).shape == (2,)


def _added(state):
    return {name: leaf + 1 for name, leaf in state.items() if name != "key"}


def test_a_mesh_splits_the_state_and_keeps_logical_shapes():
    layout, optimizer = make_layout("mesh", devices=8), optax.adam(1e-2)
    params = {"kernel": jnp.ones((16, 64)), "bias": jnp.ones(3)}
    state = layout.place(initial_state(params, optimizer, jax.random.key(0)))
    for kernel in (state.params["kernel"], state.opt_state[0].mu["kernel"]):
        assert kernel.shape == (16, 64)
        assert kernel.addressable_shards[0].data.shape == (16, 8)
    assert state.params["bias"].addressable_shards[0].data.shape == (3,)


def test_the_largest_divisible_axis_is_split():
    assert fsdp_spec((12, 64), devices=4) == PartitionSpec(None, "data")
    assert fsdp_spec((64, 12), devices=4) == PartitionSpec("data")
    assert fsdp_spec((63, 12), devices=4) == PartitionSpec(None, "data")
    assert fsdp_spec((8, 8), devices=4) == PartitionSpec("data")
    assert fsdp_spec((63, 5), devices=4) == fsdp_spec((), devices=4) == PartitionSpec()
    assert fsdp_spec((0, 5), devices=4) == PartitionSpec()


@pytest.mark.parametrize("name", ["pmap", "shards", "mesh"])
def test_rows_that_do_not_divide(name):
    """Sums over them are refused, since filled-up rows could count; rows by themselves cannot."""
    layout, batch = make_layout(name, devices=8), np.arange(24.0).reshape(12, 2)
    with pytest.raises(
        UserError, match=r"^a batch of 12 rows does not split over 8 devices; .* 8$"
    ):
        layout.sums(lambda shared, batch, axis_name: batch.sum())((), batch)
    np.testing.assert_array_equal(
        layout.rows(lambda shared, batch: 2 * batch)((), batch), 2 * batch
    )


def test_rows_that_do_not_divide_into_parts():
    layout, optimizer = make_layout("pmap", devices=8), optax.sgd(0.1)
    step = layout.step(
        functools.partial(train_step, loss_fn=loss_fn, optimizer=optimizer, micro_batches=3)
    )
    params = jax.tree.map(jnp.float32, parameters())
    state = layout.place(initial_state(params, optimizer, jax.random.key(0)))
    with pytest.raises(UserError, match=r"^4 rows on a device do not split into 3 micro-batches"):
        step(state, ragged_batch(0))


@pytest.mark.parametrize(
    "batch", [{"a": np.zeros((4, 2)), "b": np.zeros(3)}, {"a": np.zeros(4), "b": np.float32(1)}, {}]
)
def test_a_batch_needs_one_row_axis(batch):
    with pytest.raises(UserError, match=r"^a batch needs one row axis"):
        make_layout("device").rows(lambda shared, batch: batch)((), batch)


def test_padding_rows_and_back():
    tree = {"a": np.arange(10).reshape(5, 2), "b": np.ones(5, bool)}
    padded, rows = pad_rows(tree, 4)
    assert rows == 5
    np.testing.assert_array_equal(padded["a"], np.concatenate([tree["a"], np.zeros((3, 2))]))
    np.testing.assert_array_equal(padded["b"], [True] * 5 + [False] * 3)
    assert padded["a"].dtype == tree["a"].dtype
    jax.tree.map(np.testing.assert_array_equal, trim_rows(padded, rows), tree)
    assert len(pad_rows(tree, 5)[0]["b"]) == 5


def test_choice_of_layout():
    assert make_layout("auto").name == "pmap"
    assert make_layout("auto", devices=1).name == "device"
    assert len(make_layout("shards", devices=2).devices) == 2
    with pytest.raises(
        UserError, match=r"^layout 'pamp' is unknown; use one of auto, device, pmap"
    ):
        make_layout("pamp")
    with pytest.raises(UserError, match=r"^9 devices wanted, 8 visible"):
        make_layout("pmap", devices=9)
