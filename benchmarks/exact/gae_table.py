"""Bias and variance of generalized advantage estimates over lambda, on policy."""

import functools
from collections import OrderedDict  # jit sorts the keys of a plain dict

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.exact.estimates import Quality, moments, quality
from benchmarks.exact.methods import shaped
from benchmarks.exact.tables import Table, number
from benchmarks.exact.world import (
    PREFIXES,
    World,
    exact_values,
    logps,
    objective,
    params_of,
    policy_at,
    rows,
    table_logps,
    token_scores,
    values_of,
)
from jaxalign import gae, masked_sum, reinforce_loss

LAMBDAS = (0.0, 0.5, 0.9, 0.95, 1.0)


def value_functions(logits: jax.Array, rewards: jax.Array) -> dict[str, jax.Array]:
    """`[PREFIXES]` each: the truth, and what a critic that is wrong may believe."""
    exact = exact_values(logits, rewards)
    noise = jnp.asarray(np.random.default_rng(2).normal(size=PREFIXES))
    return {"exact": exact, "zero": jnp.zeros_like(exact), "exact + noise": exact + noise}


def estimate(world: World, logits: jax.Array, values: jax.Array, gae_lambda: jax.Array) -> Quality:
    """The policy gradient of one response, with these values and this lambda."""
    batch, params = rows(), params_of(logits, values)
    rewards = shaped(params, world)
    read = values_of(params)
    advantages, _ = gae(rewards, read, batch.response_mask, gamma=1.0, gae_lambda=gae_lambda)

    def losses(policy):
        return masked_sum(reinforce_loss(policy, advantages), batch.response_mask, axis=1)

    truth, weights = -jax.grad(objective)(logits, world), jnp.exp(logps(logits))
    policy, scores = table_logps(params, batch), token_scores(logits)
    return quality(*moments(losses, policy, scores, weights), truth)


@jax.jit
def gae_results(world: World) -> OrderedDict:
    """By value function, `Quality` of each lambda `[L]`, for a policy half-way to the optimum."""
    logits = policy_at(world, 0.5)
    critics = value_functions(logits, shaped(params_of(logits), world))

    def at(values):
        each = functools.partial(estimate, world, logits, values)
        return jax.vmap(each)(jnp.asarray(LAMBDAS, logits.dtype))

    qualities = jax.vmap(at)(jnp.stack(list(critics.values())))
    parts = [jax.tree.map(lambda x, k=k: x[k], qualities) for k in range(len(critics))]
    return OrderedDict(zip(critics, parts, strict=True))


def gae_table(world: World) -> Table:
    """Rows are lambdas."""
    results = gae_results(world)
    return Table(
        title="GAE over lambda",
        shows="Bias and standard deviation of the policy gradient of one response, relative to the "
        "true gradient of E[score] - beta KL; on policy, the KL (k1) in the reward, with the exact "
        "value function, with none, and with one that is wrong by noise of standard deviation 1.",
        conclusion="Lambda 1 is unbiased whatever the values, and exact values are unbiased "
        "whatever the lambda; below 1 wrong values bias the gradient, more so the lower lambda is. "
        "What lambda buys is variance: with exact values it is free and lambda 0 is best, with "
        "none it costs bias, and with noisy values a low lambda loses both.",
        header=("lambda", *(f"{what}, {name}" for name in results for what in ("bias", "sd"))),
        rows=[
            (
                f"{gae_lambda:g}",
                *(number(x[row]) for found in results.values() for x in found[2:]),
            )
            for row, gae_lambda in enumerate(LAMBDAS)
        ],
    )
