"""The control stage on a small scale: it learns, resumes exactly, and keeps its seeds apart."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxalign.config.control import ControlConfig
from jaxalign.config.seeds import NetworkConfig, UpdateSettings
from jaxalign.errors import UserError
from jaxalign.recipes import control
from jaxalign.recipes.seeds import make_calls, make_model, make_ppo_step, seed_keys
from jaxalign.rollouts.control import Rollout
from jaxalign.train.metrics import read_metrics

SMALL = ControlConfig(
    seeds=(3, 8),
    total_steps=20_480,
    environments=8,
    rollout_length=64,
    log_every=4,
    save_every=16,
    network=NetworkConfig(widths=(32,)),
    ppo=UpdateSettings(learning_rate=3e-3, update_epochs=8),
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of 40 updates: checkpoints after updates 32 and 40."""
    directory = tmp_path_factory.mktemp("control") / "run"
    return directory, control.run(SMALL, directory)


@pytest.mark.slow
def test_small_training_improves(finished):
    directory, results = finished
    lines = read_metrics(directory)
    assert [line["step"] for line in lines] == [4, 8, 12, 16, 20, 24, 28, 32, 36, 40]
    # A random policy keeps the pole up for 22 steps on average.
    assert lines[0]["returns"] < 50
    assert all(row["mean_return"] > 100 for row in results["seeds"])
    assert results["steps_per_seed"] == 40 * 512
    for line in lines:
        assert line["returns"] == pytest.approx(
            (line["returns/seed_3"] + line["returns/seed_8"]) / 2, rel=1e-5
        )


@pytest.mark.slow
def test_run_directory_is_complete(finished):
    directory, results = finished
    assert json.loads((directory / "results.json").read_text()) == results
    assert (directory / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((directory / "config.json").read_text())["total_steps"] == 20_480
    with pytest.raises(UserError, match="total_steps"):
        control.run(dataclasses.replace(SMALL, total_steps=30_000), directory)


@pytest.mark.slow
def test_resumed_run_ends_the_same(finished, tmp_path):
    directory, results = finished
    again = tmp_path / "run"
    shutil.copytree(directory, again)
    shutil.rmtree(again / "checkpoints" / "control" / "10")  # after the last of ten calls
    resumed = control.run(SMALL, again)
    assert resumed["seeds"] == results["seeds"]

    def numbers(run_dir):
        lines = read_metrics(run_dir)
        return [{k: v for k, v in line.items() if k not in ("time", "seconds")} for line in lines]

    assert numbers(again) == numbers(directory)


@pytest.mark.slow
def test_a_seed_does_not_depend_on_its_neighbour():
    model = make_model(SMALL.network, 2)
    optimizer, step = make_ppo_step(model, SMALL.ppo, updates=SMALL.cadence.updates)
    calls = make_calls(control.make_update(SMALL, model, step))
    initial = jax.jit(jax.vmap(control.make_initial(SMALL, model, optimizer)))

    def four_updates(seeds):
        start_keys, update_keys = seed_keys(seeds)
        return calls(update_keys, initial(start_keys), jnp.int32(0), length=4)[0]

    first, second = four_updates((5, 6)), four_updates((6, 7))
    # The same program; only what stands beside the seed differs.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a[1], b[0], atol=1e-6),
        first.train.params,
        second.train.params,
    )
    kernels = first.train.params["policy_0"]["kernel"]
    assert np.abs(kernels[0] - kernels[1]).max() > 0.1


def test_recent_returns_are_in_order_of_time():
    def steps(ended, returns):
        ended, returns = jnp.array(ended), jnp.array(returns)
        fields = {field.name: None for field in dataclasses.fields(Rollout)}
        fields |= {"terminations": ended, "truncations": ended & False, "episode_returns": returns}
        return Rollout(**fields)

    recent = jnp.full(4, jnp.nan)
    # Two environments, three steps; episodes end at (1, 0), (0, 1), (1, 2).
    recent = control.keep_recent(
        recent,
        steps([[False, True, False], [True, False, True]], [[1.0, 2.0, 3.0], [7.0, 8.0, 9.0]]),
    )
    np.testing.assert_array_equal(recent, [np.nan, 7, 2, 9])
    recent = control.keep_recent(recent, steps([[True, False, True]], [[4.0, 5.0, 6.0]]))
    np.testing.assert_array_equal(recent, [2, 9, 4, 6])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"log_every": 16, "save_every": 40}, "40.*16"),
        ({"environments": 3, "rollout_length": 5}, "15 decisions.*4"),
    ],
)
def test_what_does_not_divide_is_a_user_error(fields, message):
    with pytest.raises(UserError, match=message):
        ControlConfig(**fields)
