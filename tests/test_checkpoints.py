"""Checkpoints: any state comes back bit for bit, at any moment of a kill; models as safetensors."""

import json
import logging
import random
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from flax.traverse_util import unflatten_dict
from safetensors.numpy import load_file

from jaxalign.errors import UserError
from jaxalign.models.pretrained import load_own
from jaxalign.train.checkpoints import Checkpoints, save_model
from jaxalign.train.layouts import make_layout
from jaxalign.train.step import initial_state


def bits(leaf) -> np.ndarray:
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


def assert_same_bits(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(bits(a), bits(b), strict=True)


def a_state(seed: int = 0):
    rng = np.random.default_rng(seed)
    params = {
        "layer": {"kernel": jnp.float32(rng.normal(size=(8, 16)))},
        "small": jnp.asarray(rng.normal(size=3), jnp.bfloat16),
    }
    key = jax.random.key(seed)
    return initial_state(params, optax.chain(optax.clip(1.0), optax.adam(1e-3)), key)


@pytest.fixture
def checkpoints(tmp_path):
    opened = Checkpoints(tmp_path / "checkpoints")
    yield opened
    opened.close()


def test_round_trip_and_silence(checkpoints, capfd, caplog):
    state = a_state()
    with caplog.at_level(logging.WARNING):
        assert checkpoints.restore(state) is None
        checkpoints.save(7, state)
        step, restored = checkpoints.restore(a_state(seed=1))
    assert step == 7
    assert_same_bits(restored, state)
    assert (*capfd.readouterr(), caplog.text) == ("", "", "")


def test_keys_of_every_kind(checkpoints):
    state = {impl: jax.random.key(3, impl=impl) for impl in ("threefry2x32", "rbg")}
    state["several"] = jax.random.split(jax.random.key(4), 5)
    checkpoints.save(1, state)
    _, restored = checkpoints.restore(state)
    assert_same_bits(restored, state)
    assert jax.random.key_impl(restored["rbg"]) == jax.random.key_impl(state["rbg"])
    assert jax.random.normal(restored["rbg"]) == jax.random.normal(state["rbg"])


def test_one_shape_under_every_layout(checkpoints):
    layouts = [make_layout(name) for name in ("mesh", "pmap", "device")]
    state = a_state()
    for step, layout in enumerate(layouts):
        checkpoints.save(step, layout.place(state))
        for other in layouts:
            template = other.place(a_state(seed=1))
            _, restored = checkpoints.restore(template)
            assert_same_bits(restored, state)
            kernels = [tree.params["layer"]["kernel"] for tree in (restored, template)]
            assert kernels[0].sharding == kernels[1].sharding


def test_training_may_go_on_while_it_is_written(checkpoints):
    add = jax.jit(lambda leaves: [leaf + 1 for leaf in leaves], donate_argnums=0)
    state = [jnp.full((64, 64), i, jnp.float32) for i in range(50)]
    checkpoints.save(1, state)
    for _ in range(20):
        state = add(state)
    _, restored = checkpoints.restore(state)
    assert [float(leaf[0, 0]) for leaf in restored] == list(range(50))


def test_the_newest_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (3, 6, 9):
        checkpoints.save(step, {"step": jnp.int32(step)})
    checkpoints.save(9, {"step": jnp.int32(9)})  # the same step again is no error
    checkpoints.wait()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["6", "9"]
    checkpoints.close()


def test_another_state_is_refused(checkpoints):
    checkpoints.save(5, {"kernel": jnp.ones((3, 4)), "bias": jnp.ones(4)})
    for other, reason in [
        ({"kernel": jnp.ones((3, 5)), "bias": jnp.ones(4)}, r"\(3, 4\) float32 kernel.*\(3, 5\)"),
        ({"kernel": jnp.ones((3, 4)), "bias": jnp.int32([1] * 4)}, r"float32 bias.* \(4,\) int32;"),
        ({"kernel": jnp.ones((3, 4))}, r"\(4,\) float32 bias, this run has no;"),
        ({"scale": jnp.ones(4)}, r"no scale, this run has \(4,\) float32"),
    ]:
        with pytest.raises(UserError, match=rf"^checkpoint \S*/5 has .*{reason}"):
            checkpoints.restore(other)


RUN = """
import functools, os, sys, threading, time
import jax, jax.numpy as jnp, numpy as np
from jaxalign.train.checkpoints import Checkpoints, save_model
from jaxalign.train.layouts import make_layout
from jaxalign.train.loop import fit
from jaxalign.train.metrics import MetricsWriter
from jaxalign.train.optimizers import make_optimizer
from jaxalign.train.step import initial_state, train_step

directory, victim, delay = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])

def loss_fn(params, batch, key):
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, batch["index"])
    noise = jax.vmap(lambda key: jax.random.normal(key, (4,)))(keys)
    return jnp.sum((batch["x"] @ params["kernel"] - noise) ** 2), (len(batch["x"]), {})

def batches(i):
    if i == victim:  # die during this step, the save before it, or the ones after it
        threading.Thread(target=lambda: (time.sleep(delay), os.kill(os.getpid(), 9))).start()
    rng = np.random.default_rng(i)
    return {"x": rng.normal(size=(4, 6)).astype(np.float32), "index": rng.permutation(4)}

layout = make_layout("device")
optimizer = make_optimizer(learning_rate=1e-2, schedule="cosine", total_steps=30, weight_decay=0.1)
state = initial_state({"kernel": jnp.ones((6, 4))}, optimizer, jax.random.key(0))
writer, checkpoints = MetricsWriter(directory), Checkpoints(directory + "/checkpoints")
step = functools.partial(train_step, loss_fn=loss_fn, optimizer=optimizer)
state = fit(
    layout.place(state), layout.step(step), batches, steps=30, checkpoints=checkpoints,
    checkpoint_every=3, on_metrics=functools.partial(writer.write, "toy"),
    on_start=functools.partial(writer.resume, "toy"),
)
checkpoints.close()
save_model(directory + "/final", jax.device_get(state.params), {})
"""


def run_toy(directory, victim: int = -1, delay: float = 0.0) -> int:
    command = [sys.executable, "-c", RUN, str(directory), str(victim), str(delay)]
    return subprocess.run(command, check=False, timeout=300).returncode


def results(directory):
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    metrics = [{k: v for k, v in json.loads(line).items() if k != "time"} for line in lines]
    return (directory / "final" / "model.safetensors").read_bytes(), metrics


def test_killed_at_any_moment_it_ends_with_the_same_bits(tmp_path):
    """Three kills, one of them during a save: same parameters, same metrics, no line twice."""
    assert run_toy(tmp_path / "calm") == 0
    seed = random.randrange(10**6)
    rng = random.Random(seed)
    # batch 3 is asked for right after the save of step 3 has begun; a save takes about 0.1 s
    moments = [(3, rng.uniform(0, 0.1)), (rng.randrange(4, 14), 0.0), (18, rng.uniform(0, 0.3))]
    for victim, delay in moments:
        assert run_toy(tmp_path / "killed", victim, delay) == -signal.SIGKILL, (seed, victim)
    assert run_toy(tmp_path / "killed") == 0
    assert results(tmp_path / "killed") == results(tmp_path / "calm"), seed


def test_models_round_trip(tmp_path):
    params = {
        "embed": {"embedding": np.arange(12, dtype=np.float32).reshape(3, 4).T},
        "layer": {"half": np.arange(3).astype(ml_dtypes.bfloat16), "count": np.array(3)},
    }
    config = {"width": 4, "heads_out": ["logits"], "dropout": 0.1}
    save_model(tmp_path / "model", params, config)
    assert json.loads((tmp_path / "model" / "config.json").read_text()) == config
    loaded = load_file(tmp_path / "model" / "model.safetensors")
    assert_same_bits(unflatten_dict(loaded, sep="/"), params)
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]


def test_sharded_parameters_are_saved_whole(tmp_path):
    params = {"kernel": jnp.arange(64.0).reshape(8, 8)}
    save_model(tmp_path, make_layout("mesh").place(params), {})
    loaded = load_file(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(loaded["kernel"], params["kernel"])


def test_two_halves_of_different_models(tmp_path):
    save_model(tmp_path, {"w": np.ones(2)}, {"width": 2, "heads_out": []})
    (tmp_path / "config.json").write_text('{"width": 3, "heads_out": []}')
    with pytest.raises(UserError, match=r"config.json is not the config of model.safetensors$"):
        load_own(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.ckpt"])
def test_pickles_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"never read")
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(UserError, match=rf"{name}: reading such a file can run code"):
            load_own(path)


def test_incomplete_models(tmp_path):
    with pytest.raises(UserError, match=r"model.safetensors does not exist; give a directory"):
        load_own(tmp_path)
    save_model(tmp_path, {"w": np.ones(200)}, {"heads_out": []})
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(UserError, match=r"model.safetensors is no whole safetensors file"):
        load_own(tmp_path)


@pytest.mark.parametrize("name", ["a/b", "", 3])
def test_names_that_could_not_be_read_back(tmp_path, name):
    with pytest.raises(UserError, match=r"must be a word without '/'"):
        save_model(tmp_path, {"layer": {name: np.ones(2)}}, {})
