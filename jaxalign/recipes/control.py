"""PPO on a control task: training, learning curve and results."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.table import Table

from jaxalign.batches.tokens import pytree
from jaxalign.config.control import ControlConfig
from jaxalign.config.place import PlaceConfig
from jaxalign.envs import CONTROL_TASKS
from jaxalign.envs.protocol import Environment, Task
from jaxalign.models.mlp import PolicyMLP, acting
from jaxalign.recipes.run import open_run
from jaxalign.recipes.seeds import (
    curves,
    make_model,
    make_ppo_step,
    plot_curves,
    seed_keys,
    train_seeds,
    write_results,
)
from jaxalign.rollouts.control import (
    EnvironmentStates,
    Rollout,
    decision_rows,
    experience,
    rollout,
    start,
)
from jaxalign.system.console import show
from jaxalign.train.epochs import ppo_epochs
from jaxalign.train.metrics import read_metrics
from jaxalign.train.step import TrainState, initial_state

STAGE = "control"
RECENT = 100  # episodes


def environment_of(config: ControlConfig) -> Environment:
    """One environment of the configured task."""
    return CONTROL_TASKS[config.task].made(config.max_episode_steps)


@pytree
class ControlState:
    """State of one seed's training: parameters, environments, recent returns.

    train: parameters and optimizer.
    running: the environments, in the middle of their episodes.
    recent: `[100]` returns of the last episodes, oldest first; NaN where there were none yet.
    """

    train: TrainState
    running: EnvironmentStates
    recent: jax.Array


def keep_recent(recent: jax.Array, steps: Rollout) -> jax.Array:
    """The last returns after a rollout whose ended episodes are appended in order of time.

    Args:
      recent: `[K]`, oldest first, NaN in front where there are fewer.
      steps: `[B, T]` rollout.
    """
    ended = jnp.where(steps.ended, steps.episode_returns, jnp.nan)
    returns = jnp.concatenate([recent, ended.T.reshape(-1)])
    order = jnp.argsort(~jnp.isnan(returns), stable=True)
    return returns[order[-recent.shape[0] :]]


def make_update(config: ControlConfig, model: PolicyMLP, step: Callable[..., Any]):
    """`update(key, state, number)`: one rollout of one seed and PPO's epochs on it."""
    environment = environment_of(config)
    ppo = config.ppo

    def update(key: jax.Array, state: ControlState, number: jax.Array):
        rollout_key, order_key = jax.random.split(jax.random.fold_in(key, number))
        policy = acting(model, state.train.params)
        running, steps = rollout(
            environment, policy, state.running, rollout_key, length=config.rollout_length
        )
        next_values = policy(steps.next_observations).values
        rows = decision_rows(
            experience(steps, next_values, gamma=ppo.gamma, gae_lambda=ppo.gae_lambda)
        )
        train, metrics = ppo_epochs(
            state.train,
            rows,
            order_key,
            step=step,
            epochs=ppo.update_epochs,
            minibatches=ppo.minibatches,
        )
        recent = keep_recent(state.recent, steps)
        state = ControlState(train=train, running=running, recent=recent)
        return state, metrics | {"returns": jnp.nanmean(recent)}

    return update


def make_initial(config: ControlConfig, model: PolicyMLP, optimizer: optax.GradientTransformation):
    """`initial(key) -> ControlState`: parameters and environments of one seed before training."""
    environment = environment_of(config)

    def initial(key: jax.Array) -> ControlState:
        init_key, start_key, train_key = jax.random.split(key, 3)
        running = start(environment, start_key, jnp.arange(config.environments))
        params = model.init(init_key, running.observations)["params"]
        return ControlState(
            train=initial_state(params, optimizer, train_key),
            running=running,
            recent=jnp.full(RECENT, jnp.nan),
        )

    return initial


def summarize(config: ControlConfig, states: ControlState, lines: list[dict]) -> dict:
    """Results of a finished run: final returns, when the task was solved, and how long it took."""
    final = np.nanmean(np.asarray(states.recent), axis=1)
    returns = curves(lines, [f"returns/seed_{seed}" for seed in config.seeds])
    steps = np.array([line["step"] for line in lines]) * config.steps_per_update
    solved = [
        steps[curve >= CONTROL_TASKS[config.task].solved_return][:1].tolist() for curve in returns
    ]
    seconds = sum(line.get("seconds", 0.0) for line in lines)
    trained = config.cadence.updates * config.steps_per_update
    return {
        "seeds": [
            {"seed": seed, "mean_return": float(value), "solved_at_step": (at or [None])[0]}
            for seed, value, at in zip(config.seeds, final, solved, strict=True)
        ],
        "mean_return": float(final.mean()),
        "sd_return": float(final.std()),
        "steps_per_seed": trained,
        "seconds": seconds,
        "steps_per_second": trained * len(final) / seconds if seconds else None,
    }


def print_table(task: Task, results: dict):
    """Print the final returns, a row for each seed."""
    table = Table(title=f"{task.title}, last {RECENT} episodes")
    for name in ("seed", "mean return", f"steps to {task.solved_return:.0f}"):
        table.add_column(name, justify="right")
    for row in results["seeds"]:
        at = row["solved_at_step"]
        steps = "not reached" if at is None else f"{at:,}"
        table.add_row(str(row["seed"]), f"{row['mean_return']:.1f}", steps)
    mean = f"{results['mean_return']:.1f} ± {results['sd_return']:.1f}"
    table.add_row("mean ± sd", mean, f"of {results['steps_per_seed']:,}")
    show(table)


def run(config: ControlConfig, run_dir: Path) -> dict:
    """Train all seeds (or resume), then write table, learning curve and `results.json`."""
    model = make_model(config.network, CONTROL_TASKS[config.task].num_actions)
    optimizer, step = make_ppo_step(model, config.ppo, updates=config.cadence.updates)
    start_keys, update_keys = seed_keys(config.seeds)
    with open_run(run_dir, config, PlaceConfig(layout="device"), config.seeds[0], inputs={}) as run:
        states = train_seeds(
            run,
            STAGE,
            jax.jit(jax.vmap(make_initial(config, model, optimizer)))(start_keys),
            update_keys,
            update=make_update(config, model, step),
            cadence=config.cadence,
            seeds=config.seeds,
            by_seed=("returns",),
        )
    lines = [line for line in read_metrics(run_dir) if line["stage"] == STAGE]
    results = summarize(config, states, lines)
    write_results(run_dir, results)
    plot_returns(config, lines, run_dir / "learning_curve.png")
    print_table(CONTROL_TASKS[config.task], results)
    return results


def plot_returns(config: ControlConfig, lines: list[dict], path: Path):
    """Learning curves of all seeds."""
    plot_curves(
        path,
        np.array([line["step"] for line in lines]) * config.steps_per_update,
        curves(lines, [f"returns/seed_{seed}" for seed in config.seeds]),
        labels=[f"seed {seed}" for seed in config.seeds],
        x="environment steps of each seed",
        y=f"mean return of the last {RECENT} episodes",
    )
