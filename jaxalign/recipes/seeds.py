"""Training of many seeds side by side, for control and images.

A seed's whole update (rollout, advantages, epochs) is one function of its problem, its state and
the number of the update. `vmap` runs the seeds together; a short `scan` makes one compiled call of
a few updates, and the usual training loop repeats it: the program stays small, and there is
something to log, show and save in between.
"""

import functools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign import objectives
from jaxalign.config.seeds import Cadence, NetworkConfig, UpdateSettings
from jaxalign.models.mlp import PolicyMLP
from jaxalign.numerics.types import Tree
from jaxalign.recipes.run import Run
from jaxalign.rollouts.control import action_policy
from jaxalign.system.files import replace_file, write_atomically
from jaxalign.train.evaluations import Evaluations
from jaxalign.train.loop import fit
from jaxalign.train.optimizers import make_optimizer
from jaxalign.train.step import summed_step


def make_model(network: NetworkConfig, num_actions: int) -> PolicyMLP:
    """The policy and value networks."""
    return PolicyMLP(num_actions=num_actions, widths=network.widths, activation=network.activation)


def make_ppo_step(model: PolicyMLP, ppo: UpdateSettings, *, updates: int):
    """The optimizer, and `step(state, Experience) -> (state, metrics)` with the PPO objective."""
    optimizer = make_optimizer(
        learning_rate=ppo.learning_rate,
        schedule=ppo.schedule,
        total_steps=updates * ppo.update_epochs * ppo.minibatches,
        max_grad_norm=ppo.max_grad_norm,
        eps=ppo.adam_eps,
    )
    loss_fn = objectives.ppo(
        action_policy(model),
        clip_range=ppo.clip_range,
        value_clip_range=ppo.value_clip_range,
        value_coef=ppo.value_coef,
        entropy_coef=ppo.entropy_coef,
    )
    return optimizer, functools.partial(summed_step, loss_fn=loss_fn, optimizer=optimizer)


def seed_keys(seeds: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """Two independent keys a seed, `[seeds]` each: one for its start, one for its updates."""
    keys = jax.vmap(lambda seed: jax.random.split(jax.random.key(seed)))(jnp.array(seeds))
    return keys[:, 0], keys[:, 1]


def train_seeds(
    run: Run,
    name: str,
    states: Tree,
    problems: Tree,
    *,
    update: Callable[[Any, Any, jax.Array], tuple[Any, dict]],
    cadence: Cadence,
    seeds: tuple[int, ...],
    by_seed: tuple[str, ...],
    evaluate: Callable[[Any], dict[str, float]] | None = None,
):
    """The states of all seeds after the last update, going on from the last checkpoint if any.

    Args:
      run: where metrics and checkpoints are written.
      name: of the stage there.
      states, problems: trees with a seed axis first; `states` as before the first update.
      update: `(problem, state, number) -> (state, metrics)` of one seed; `number` counts from 0.
      cadence: how many updates, and how many in a compiled call.
      seeds: their names in the metrics.
      by_seed: metrics that are written for every seed too, as `NAME/seed_SEED`.
      evaluate: further metrics of the states, at every line.
    """
    calls = make_calls(update)

    def step(states: Tree, call: int):
        first = call * cadence.log_every
        states, metrics = calls(
            problems, states, jnp.int32(first), length=cadence.done(call + 1) - first
        )
        return states, spread(jax.tree.map(lambda x: x.mean(axis=1), metrics), seeds, by_seed)

    checkpoints = run.checkpoints(name)
    states = fit(
        states,
        step,
        lambda call: call,
        steps=cadence.calls,
        on_metrics=_metrics_writer(run, name, cadence),
        on_start=lambda call: run.metrics.resume(name, cadence.done(call)),
        checkpoints=checkpoints,
        save_every=cadence.save_every // cadence.log_every,
        evaluations=None if evaluate is None else Evaluations(evaluate=evaluate, every=1),
        label=name,
    )
    checkpoints.close()
    return states


def _metrics_writer(
    run: Run, name: str, cadence: Cadence
) -> Callable[[int, dict[str, float]], None]:
    """Writer of the finite metrics of a compiled call, with the seconds since the last one."""
    began = time.perf_counter()

    def write(call: int, metrics: dict[str, float]) -> None:
        nonlocal began
        finite = {metric: value for metric, value in metrics.items() if np.isfinite(value)}
        now = time.perf_counter()
        seconds = {"seconds": now - began} if "loss" in metrics else {}
        run.metrics.write(name, cadence.done(call), finite | seconds)
        began = now

    return write


def make_calls(update: Callable[..., Any]):
    """`calls(problems, states, first, length=n)`: n updates of every seed in one compiled call.

    Args:
      update: as in `train_seeds`.

    Returns:
      A function from trees with a seed axis first to the new states and `[seeds, n]` metrics.
    """

    @functools.partial(jax.jit, static_argnames="length")
    def calls(problems: Tree, states: Tree, first: jax.Array, *, length: int):
        numbers = first + jnp.arange(length)

        def one_seed(problem: Tree, state: Tree):
            return jax.lax.scan(functools.partial(update, problem), state, numbers)

        return jax.vmap(one_seed)(problems, states)

    return calls


def spread(metrics: dict, seeds: tuple[int, ...], by_seed: tuple[str, ...]) -> dict:
    """`[seeds]` metrics as scalars: the mean of each and, of those in `by_seed`, every seed's."""
    means = {name: values.mean() for name, values in metrics.items()}
    single = {
        f"{name}/seed_{seed}": metrics[name][row]
        for name in by_seed
        for row, seed in enumerate(seeds)
    }
    return means | single


def write_results(directory: Path, results: dict):
    """Write `results.json`."""
    write_atomically(directory / "results.json", json.dumps(results, indent=2).encode())


def curves(lines: list[dict], names: list[str]) -> np.ndarray:
    """`[names, lines]`: the named metrics over time, NaN where a line has none."""
    return np.array([[line.get(name, np.nan) for line in lines] for name in names])


def plot_curves(
    path: Path, steps: np.ndarray, curves: np.ndarray, *, labels: list[str], x: str, y: str
):
    """Plot of a thin line for each seed and their mean, as a PNG file."""
    from matplotlib.figure import Figure

    axes = (figure := Figure(figsize=(6, 4), layout="constrained")).subplots()
    for curve, label in zip(curves, labels, strict=True):
        axes.plot(steps, curve, linewidth=0.8, alpha=0.7, label=label)
    axes.plot(steps, np.mean(curves, axis=0), color="black", linewidth=2, label="mean")
    axes.set(xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    axes.legend()
    replace_file(path, lambda aside: figure.savefig(aside, dpi=150, format="png"))
