"""Checkpoints: any state comes back bit for bit, at any moment of a kill; models as safetensors."""

import json
import logging
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from flax.traverse_util import unflatten_dict
from safetensors.numpy import load_file

from jaxalign.errors import UserError
from jaxalign.layouts.choice import make_layout
from jaxalign.pretrained.folders import load_own
from jaxalign.recipes.run_directory import directory_of
from jaxalign.train import checkpoints as checkpoints_module
from jaxalign.train.checkpoints import Checkpoints, checked, save_model
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


@pytest.mark.parametrize("name", ["mesh", "pmap", "device"])
def test_nothing_restored_shares_memory(checkpoints, name):
    """A step overwrites its state, on every device."""
    layout, state = make_layout(name), {"kernel": jnp.arange(2.0**16).reshape(256, 256)}
    checkpoints.save(1, state)
    _, restored = checkpoints.restore(layout.place(state))
    shards = restored["kernel"].addressable_shards
    assert len({shard.data.unsafe_buffer_pointer() for shard in shards}) == len(shards)


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
from jaxalign.layouts.choice import make_layout
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
    save_every=3, on_metrics=functools.partial(writer.write, "toy"),
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


@pytest.mark.slow
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


def small(number: float, rng: int = 0):
    state = {"a": jnp.full((20, 30), number), "key": jax.random.key(rng)}
    return state | {"empty": jnp.zeros((0, 3))}


@pytest.fixture
def two(tmp_path):
    """Checkpoints of steps 1 and 2, and the directory that they are in."""
    checkpoints = Checkpoints(tmp_path / "stage", run="mine")
    for step in (1, 2):
        checkpoints.save(step, small(float(step)))
    checkpoints.wait()
    return checkpoints, tmp_path / "stage"


@pytest.mark.slow
def test_every_flipped_byte_is_noticed(two):
    """In every file: the first and last 10 bytes, and every twentieth of the others."""
    _, folder = two
    rng, tried = np.random.default_rng(0), 0
    for path in (path for path in (folder / "2").rglob("*") if path.is_file()):
        content = path.read_bytes()
        for at in range(len(content)):
            if 10 <= at < len(content) - 10 and rng.random() > 0.05:
                continue
            flipped = content[at] ^ (1 << int(rng.integers(8)))
            path.write_bytes(content[:at] + bytes([flipped]) + content[at + 1 :])
            with pytest.raises(Exception, match=r"^is (damaged|named|of another run)"):
                checked(folder / "2", 2, "mine")
            tried += 1
        path.write_bytes(content)
    assert checked(folder / "2", 2, "mine").step == 2
    assert tried > 200


def largest(folder):
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def cut(folder):
    path = largest(folder / "2" / "state")
    path.write_bytes(path.read_bytes()[:-1])


def emptied(folder):
    shutil.rmtree(folder / "2")
    (folder / "2").mkdir()


def foreign(folder):
    other = Checkpoints(folder.parent / "other", run="theirs")
    other.save(2, small(7.0))
    other.close()
    shutil.rmtree(folder / "2")
    (folder.parent / "other" / "2").rename(folder / "2")


@pytest.mark.parametrize(
    ("damage", "usable", "words"),
    [
        (cut, 1, r"2 is damaged: state/\S+ is not as it was written"),
        (emptied, 1, r"2 is not whole: it has no manifest.json"),
        (foreign, 1, r"2 is of another run"),
        (lambda folder: (folder / "2").rename(folder / "900"), 1, r"900 is named 900, but is .* 2"),
        (lambda folder: (folder / "2" / "manifest.json").unlink(), 1, r"has no manifest.json"),
        (lambda folder: (folder / "2" / "manifest.json").write_text("{}"), 1, r"2 is damaged"),
        (lambda folder: (folder / "2" / "manifest.json").write_bytes(b"\xff["), 1, r"2 is damaged"),
        (lambda folder: (folder / "2/state/more").write_text(""), 1, r"state/more was not written"),
        (lambda folder: largest(folder / "2" / "state").unlink(), 1, r"state/\S+ is missing"),
        (
            lambda folder: shutil.rmtree(folder / "2/state"),
            1,
            r"2 is damaged: state/\S+ is missing",
        ),
        (lambda folder: os.mkfifo(folder / "2/pipe"), 1, r"2 is damaged: \S+pipe is a pipe"),
        (lambda folder: (folder / "9").write_text("no"), 2, r"9 is no directory"),
        (lambda folder: shutil.copytree(folder / "1", folder / "5"), 2, r"5 is named 5, .* 1"),
    ],
)
def test_what_is_not_whole_is_named_and_the_one_before_it_used(two, capfd, damage, usable, words):
    checkpoints, folder = two
    damage(folder)
    step, state = checkpoints.restore(small(0.0))
    assert (step, float(state["a"][0, 0])) == (usable, usable)
    (line,) = capfd.readouterr().err.splitlines()
    assert re.search(rf"^checkpoint .*{words}.*: going on from step {usable}$", line), line
    for later in (3, 9, 12):  # also under the name that was damaged
        checkpoints.save(later, small(float(later)))
    checkpoints.wait()
    assert checkpoints.steps() == [9, 12]
    assert [p.name for p in folder.iterdir() if p.name.endswith(".damaged")]
    step, state = Checkpoints(folder, run="mine").restore(small(0.0))
    assert (step, float(state["a"][0, 0])) == (12, 12)
    assert capfd.readouterr().err == ""


def test_looking_at_a_checkpoint_changes_nothing(two):
    """`explain` reads the checkpoints of a run that may still be going on."""
    _, folder = two
    (folder / ".3.0a1b.tmp").mkdir()
    cut(folder)
    before = sorted(path.name for path in folder.iterdir())
    assert Checkpoints(folder).restore(small(0.0))[0] == 1
    assert sorted(path.name for path in folder.iterdir()) == before
    assert Checkpoints(folder.parent / "none").restore(small(0.0)) is None
    assert not (folder.parent / "none").exists()


def test_where_none_is_whole_one_line_says_so(two):
    checkpoints, folder = two
    cut(folder)
    largest(folder / "1" / "state").unlink()
    for _ in range(2):
        with pytest.raises(UserError, match=r"2 is damaged: .*, and there is no other; remove \S*"):
            checkpoints.restore(small(0.0))
    shutil.rmtree(folder)  # as it says
    again = Checkpoints(folder, run="mine")
    assert again.restore(small(0.0)) is None
    again.save(1, small(1.0))
    again.wait()
    assert again.steps() == [1]


@pytest.mark.parametrize(
    "name",
    [
        "seed=[1,2]",
        "a\\b",
        "*?",
        "{a}",
        "100%",
        "a b\n",
        "gs:",
        "~",
        "-x",
        "$HOME",
        "å日",
        "x" * 200,
    ],
)
def test_directories_of_any_name(tmp_path, name):
    checkpoints = Checkpoints(tmp_path / name / "stage")
    checkpoints.save(3, small(3.0))
    step, state = checkpoints.restore(small(0.0))
    assert (step, float(state["a"][0, 0])) == (3, 3)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_directory_that_checkpoints_cannot_be_read_from_is_refused(tmp_path, monkeypatch):
    """Orbax takes brackets for a pattern; a link hides them, unless it lies in brackets as well."""
    (tmp_path / "[t]").mkdir()
    for place, why in [(tmp_path / "[t]", "has one as well"), (tmp_path / "none", "No such file")]:
        monkeypatch.setattr(tempfile, "tempdir", str(place))
        for name, character in [("seed=[1]", r"'\['"), ("a\\b", r"'\\\\'"), ("a\nb", r"'\\n'")]:
            words = (
                rf"^[^\n]* has the character {character}, [^\n]*{why}.* give an --output without"
            )
            with pytest.raises(UserError, match=words):
                directory_of(str(tmp_path / name))
        assert directory_of(str(tmp_path / "seed=1")) == tmp_path / "seed=1"
        assert [path.name for path in tmp_path.iterdir()] == ["[t]"]
        assert not list((tmp_path / "[t]").iterdir())


FULL = """
import resource, sys
import jax.numpy as jnp, numpy as np
from jaxalign.errors import UserError
from jaxalign.train.checkpoints import Checkpoints

state = {str(i): np.random.default_rng(i).normal(size=(100, 100)) for i in range(20)}
checkpoints = Checkpoints(sys.argv[1])
for limit in (30_000, 5_000, 500, 50, resource.RLIM_INFINITY):  # an array has 40,000 bytes
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        checkpoints.save(3, state)
        checkpoints.wait()
    except UserError as error:
        print(error, file=sys.stderr)
"""


@pytest.mark.slow
def test_a_full_disk_is_one_line_each_time(tmp_path):
    """And nothing else: no traceback of the threads that write the other arrays."""
    command = [sys.executable, "-W", "error", "-c", FULL, str(tmp_path / "stage")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    place = re.escape(str(tmp_path / "stage" / "3"))
    line = rf"{place} could not be written: File too large; make room and run .*\n"
    assert re.fullmatch(rf"({line}){{4}}", done.stderr), done.stderr
    assert [path.name for path in (tmp_path / "stage").iterdir()] == ["3"]


def test_a_save_that_fails_is_one_line(two, monkeypatch, capfd):
    checkpoints, folder = two

    def full(*arguments):
        raise ValueError("OUT_OF_RANGE: ... Failed to write [os_error_code='28']")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints_module, "_save", full)
        checkpoints.save(3, small(3.0))
        with pytest.raises(
            UserError, match=r"3 could not be written: No space left on device; make"
        ):
            checkpoints.wait()
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2"]
    checkpoints.save(3, small(3.0))  # there is room again
    checkpoints.wait()
    shutil.rmtree(folder)
    checkpoints.save(4, small(4.0))
    checkpoints._thread.join()
    with pytest.raises(UserError, match=r"4 could not be written: No such file or directory"):
        checkpoints.check()
    checkpoints.check()
    assert not folder.exists()
    assert capfd.readouterr() == ("", "")
