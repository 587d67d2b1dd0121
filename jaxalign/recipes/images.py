"""PPO fine-tuning of an image classifier from right/wrong feedback."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.table import Table

from jaxalign.advantages import shaped_rewards
from jaxalign.batches.tokens import pytree
from jaxalign.config.images import ImagesConfig
from jaxalign.config.place import PlaceConfig
from jaxalign.envs.digits import NUM_CLASSES, Digits, DigitsBandit, DigitsSplit, split_digits
from jaxalign.kl import exact_kl, k1
from jaxalign.logprobs import action_logps
from jaxalign.losses.cross_entropy import cross_entropy_loss
from jaxalign.models.mlp import PolicyMLP, acting
from jaxalign.numerics.masking import masked_sum
from jaxalign.numerics.types import Params
from jaxalign.recipes.inputs import rows_digest
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
from jaxalign.rollouts.control import Rollout, experience, rollout, start
from jaxalign.system.console import show
from jaxalign.train.epochs import ppo_epochs
from jaxalign.train.metrics import read_metrics
from jaxalign.train.optimizers import make_optimizer
from jaxalign.train.step import TrainState, initial_state, train_step

STAGE = "images"
TABLE_WIDTH = 100  # characters; a narrower terminal wraps the lines of the table


@pytree
class Problem:
    """Data and reference of one seed's fine-tuning.

    split: its images.
    reference: parameters of the pretrained classifier, which PPO starts from.
    key: of its rollouts and permutations.
    """

    split: DigitsSplit
    reference: Any
    key: jax.Array


def classification(model: PolicyMLP):
    """Cross-entropy objective of labelled images; the weight counts images that are not masked."""

    def loss_fn(params: Params, batch: Digits, key: jax.Array):
        del key  # no noise
        logits = acting(model, params)(batch.images).logits
        losses = cross_entropy_loss(action_logps(logits, batch.labels))
        return masked_sum(losses, batch.weights), (batch.weights.sum(), {})

    return loss_fn


def fit_labels(model: PolicyMLP, config: ImagesConfig):
    """`fit(params, Digits, key) -> params`: supervised training, all images in every step."""
    optimizer = make_optimizer(
        learning_rate=config.pretraining_learning_rate,
        schedule="linear",
        total_steps=config.pretraining_steps,
    )
    step = functools.partial(train_step, loss_fn=classification(model), optimizer=optimizer)

    def fit(params: Params, digits: Digits, key: jax.Array):
        state = initial_state(params, optimizer, key)
        state, _ = jax.lax.scan(
            lambda state, _: step(state, digits), state, length=config.pretraining_steps
        )
        return state.params

    return fit


def make_update(config: ImagesConfig, model: PolicyMLP, step: Callable[..., Any]):
    """`update(problem, state, number)`: sampled labels of images, rewards, PPO's epochs."""
    ppo = config.ppo

    def update(problem: Problem, state: TrainState, number: jax.Array):
        start_key, rollout_key, order_key = jax.random.split(
            jax.random.fold_in(problem.key, number), 3
        )
        pool = problem.split.feedback
        bandit = DigitsBandit(images=pool.images, labels=pool.labels)
        running = start(bandit, start_key, jnp.arange(config.batch_size))
        _, steps = rollout(bandit, acting(model, state.params), running, rollout_key, length=1)
        shaped, kl = penalized(steps, model, problem.reference, kl_coef=config.kl_coef)
        # Every episode ends with its only step: nothing is bootstrapped.
        rows = experience(
            shaped, jnp.zeros_like(steps.values), gamma=ppo.gamma, gae_lambda=ppo.gae_lambda
        )
        state, metrics = ppo_epochs(
            state, rows, order_key, step=step, epochs=ppo.update_epochs, minibatches=ppo.minibatches
        )
        return state, metrics | {"rewards/right": steps.rewards.mean(), "kl/reference": kl.mean()}

    return update


def penalized(
    steps: Rollout, model: PolicyMLP, reference: Params, *, kl_coef: float
) -> tuple[Rollout, jax.Array]:
    """Rollout with the KL penalty in its rewards, and log-ratios `[B, T]` to the reference."""
    logits = acting(model, reference)(steps.observations).logits
    kl = k1(steps.behaviour_logps, action_logps(logits, steps.actions))
    mask = jnp.ones(kl.shape, bool)
    rewards = shaped_rewards(steps.rewards[:, -1], kl, mask, kl_coef=kl_coef)
    return dataclasses.replace(steps, rewards=rewards), kl


def make_evaluation(model: PolicyMLP):
    """`evaluate(params, problem) -> metrics` of the most likely class on the test images."""

    def evaluate(params: Params, problem: Problem) -> dict[str, jax.Array]:
        test = problem.split.test
        logits = acting(model, params)(test.images).logits
        before = acting(model, problem.reference)(test.images).logits
        right = jnp.argmax(logits, axis=-1) == test.labels
        members = jax.nn.one_hot(test.labels, NUM_CLASSES)
        recalls = right.astype(jnp.float32) @ members / members.sum(axis=0)
        return {
            "accuracy": right.mean(),
            "macro_recall": recalls.mean(),
            "worst_recall": recalls.min(),
            "kl": exact_kl(logits, before).mean(),
            "recalls": recalls,
        }

    return evaluate


def make_problem(config: ImagesConfig, model: PolicyMLP):
    """`problem(split, start_key, update_key) -> Problem`: pretrains one seed's classifier."""
    fit = fit_labels(model, config)

    def problem(split: DigitsSplit, start_key: jax.Array, update_key: jax.Array) -> Problem:
        init_key, fit_key = jax.random.split(start_key)
        params = model.init(init_key, split.pretraining.images)["params"]
        reference = fit(params, split.pretraining, fit_key)
        return Problem(split=split, reference=reference, key=update_key)

    return problem


def supervised_params(config: ImagesConfig, model: PolicyMLP, problems: Problem):
    """Parameters `[seeds]` trained on the labels of the feedback images, for comparison."""
    fit = fit_labels(model, config)
    return jax.jit(jax.vmap(fit))(problems.reference, problems.split.feedback, problems.key)


def split_seeds(config: ImagesConfig) -> DigitsSplit:
    """Splits of the images of all seeds, stacked."""
    splits = [
        split_digits(
            seed,
            test_share=config.test_share,
            rare_classes=config.rare_classes,
            rare_examples=config.rare_examples,
        )
        for seed in config.seeds
    ]
    return jax.tree.map(lambda *parts: jnp.stack(parts), *splits)


def summarize(config: ImagesConfig, rows: dict[str, dict], lines: list[dict]) -> dict:
    """Mean and standard deviation over seeds of every row's metrics."""

    def row(metrics: dict) -> dict:
        numbers = {name: np.asarray(value, np.float64) for name, value in metrics.items()}
        recalls = numbers.pop("recalls")
        numbers |= {f"recall_{label}": recalls[:, label] for label in config.rare_classes}
        return {name: [float(x.mean()), float(x.std())] for name, x in numbers.items()} | {
            "recalls": recalls.mean(axis=0).tolist()
        }

    return {
        "seeds": list(config.seeds),
        "rows": {name: row(metrics) for name, metrics in rows.items()},
        "feedbacks_per_seed": config.updates * config.batch_size,
        "seconds": sum(line.get("seconds", 0.0) for line in lines),
    }


def print_table(results: dict):
    """Print the results, a row for each training, mean ± standard deviation over seeds."""
    rows = results["rows"]
    names = [name for name in next(iter(rows.values())) if name != "recalls"]
    table = Table(title=f"Digits: test images, mean ± sd of {len(results['seeds'])} seeds")
    table.add_column("classifier", no_wrap=True)
    for name in names:
        table.add_column(name.replace("_", "\n"), justify="right", no_wrap=True)
    for classifier, numbers in rows.items():
        cells = (f"{mean:.3f}\n± {sd:.3f}" for mean, sd in (numbers[name] for name in names))
        table.add_row(classifier, *cells)
    show(table, width=TABLE_WIDTH)


def run(config: ImagesConfig, run_dir: Path) -> dict:
    """Pretrain and fine-tune all seeds (or resume), then write table, plot and results."""
    model = make_model(config.network, NUM_CLASSES)
    optimizer, step = make_ppo_step(model, config.ppo, updates=config.updates)
    splits = split_seeds(config)
    problems = jax.jit(jax.vmap(make_problem(config, model)))(splits, *seed_keys(config.seeds))
    initial = jax.vmap(lambda problem: initial_state(problem.reference, optimizer, problem.key))
    test = jax.jit(jax.vmap(make_evaluation(model)))
    inputs = {"images": rows_digest(np.asarray(part) for part in jax.tree.leaves(splits))}
    with open_run(
        run_dir, config, PlaceConfig(layout="device"), config.seeds[0], inputs=inputs
    ) as run:
        states = train_seeds(
            run,
            STAGE,
            initial(problems),
            problems,
            update=make_update(config, model, step),
            cadence=config.cadence,
            seeds=config.seeds,
            by_seed=(),
            evaluate=lambda states: test_metrics(config, test(states.params, problems)),
        )
    rows = {
        "pretrained": problems.reference,
        "PPO, right or wrong": states.params,
        "same images, labelled": supervised_params(config, model, problems),
    }
    rows = {name: test(params, problems) for name, params in rows.items()}
    lines = [line for line in read_metrics(run_dir) if line["stage"] == STAGE]
    results = summarize(config, rows, lines)
    write_results(run_dir, results)
    plot_tests(config, lines, run_dir / "learning_curve.png")
    print_table(results)
    return results


def test_metrics(config: ImagesConfig, metrics: dict) -> dict[str, float]:
    """A line of the test metrics: means over seeds, and every seed's accuracy."""
    scalars = {name: value for name, value in metrics.items() if name != "recalls"}
    line = {f"test/{name}": float(value.mean()) for name, value in scalars.items()}
    by_seed = zip(config.seeds, metrics["accuracy"].tolist(), strict=True)
    return line | {f"test/accuracy/seed_{seed}": value for seed, value in by_seed}


def plot_tests(config: ImagesConfig, lines: list[dict], path: Path):
    """Plot of the test accuracy of all seeds over the number of feedbacks."""
    lines = [line for line in lines if "test/accuracy" in line]
    plot_curves(
        path,
        np.array([line["step"] for line in lines]) * config.batch_size,
        curves(lines, [f"test/accuracy/seed_{seed}" for seed in config.seeds]),
        labels=[f"seed {seed}" for seed in config.seeds],
        x="bits of feedback heard by each seed",
        y="accuracy on test images",
    )
