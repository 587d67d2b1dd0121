"""Every method from the reference to where it ends, against pi_ref exp(score / beta) / Z."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from benchmarks.exact.methods import (
    GROUP,
    Method,
    corrected_term,
    dpo_method,
    group_method,
    k2_term,
    k3_term,
    no_kl,
    ppo_method,
    reinforce_method,
    response_grpo,
    rloo,
    token_grpo,
)
from benchmarks.exact.tables import Table, number
from benchmarks.exact.training import UPDATES, Distance, arrive, distance
from benchmarks.exact.world import BETA, World, optimal_logps
from jaxalign import centred_advantages, grpo_advantages, leave_one_out_advantages
from jaxalign.losses.aggregation import sequence_mean, sequence_sum

SEEDS = 8
SAMPLES = 96
SAMPLED_UPDATES = 2000
SAMPLED_RATE = 0.03


def in_score(advantages, loss, epochs: int = 1) -> Callable[[], Method]:
    """Group methods whose score pays for the KL."""
    return lambda: group_method(advantages, loss, kl_in_score=True, epochs=epochs)


def in_loss(advantages, loss, epochs: int = 1) -> Callable[[], Method]:
    """Group methods whose loss pays for the KL."""
    return lambda: group_method(advantages, loss, kl_in_score=False, epochs=epochs)


WHOLE = token_grpo(no_kl, sequence_sum)
TO_THE_OPTIMUM: dict[str, Callable[[], Method]] = {
    "DPO, pairs of the reference": dpo_method,
    "DPO, pairs of the policy": lambda: dpo_method(online=True),
    "PPO, GAE 0.95, clip, 4 epochs": ppo_method,
    "REINFORCE": reinforce_method,
    "RLOO, clip, 4 epochs": in_score(leave_one_out_advantages, rloo, 4),
    "Dr. GRPO, KL in the score": in_score(centred_advantages, WHOLE),
    "GRPO's advantages, KL in the score": in_score(grpo_advantages, WHOLE),
    "leave-one-out, loss k2 of responses": in_loss(
        leave_one_out_advantages, response_grpo(k2_term)
    ),
    "leave-one-out, loss corrected k3 of responses, 4 epochs": in_loss(
        leave_one_out_advantages, response_grpo(corrected_term), 4
    ),
}
ELSEWHERE: dict[str, Callable[[], Method]] = {
    "Dr. GRPO, loss k2 of responses": in_loss(centred_advantages, response_grpo(k2_term)),
    "leave-one-out, loss corrected k3 of tokens": in_loss(
        leave_one_out_advantages, token_grpo(corrected_term, sequence_sum)
    ),
    "leave-one-out, loss k3 of tokens": in_loss(
        leave_one_out_advantages, token_grpo(k3_term, sequence_sum)
    ),
    "GRPO's advantages, loss k2 of responses": in_loss(grpo_advantages, response_grpo(k2_term)),
    "GRPO as published (loss k3 of tokens, mean over tokens)": in_loss(
        grpo_advantages, token_grpo(k3_term, sequence_mean)
    ),
}
SAMPLED: dict[str, Callable[[], Method]] = {
    "PPO, GAE 0.95, clip, 4 epochs": lambda: ppo_method(samples=SAMPLES),
    "RLOO, clip, 4 epochs": lambda: group_method(
        leave_one_out_advantages, rloo, kl_in_score=True, epochs=4, samples=SAMPLES
    ),
    "leave-one-out, loss k2 of responses": lambda: group_method(
        leave_one_out_advantages, response_grpo(k2_term), kl_in_score=False, samples=SAMPLES
    ),
}


class Arrival(NamedTuple):
    """Where a method ended.

    kl, gap, objective, optimum: as in `Distance`. gradient: norm of the method's own last one.
    """

    kl: float
    gap: float
    objective: float
    optimum: float
    gradient: float


def arrival(method: Method, world: World, updates: int = UPDATES) -> Arrival:
    """Trains by exact expectations."""
    logits, norms = arrive(method, world, jnp.arange(1), updates=updates)
    return Arrival(*(float(x) for x in (*distance(logits[0], world), norms[0])))


def shrunk_optimum(world: World) -> jax.Array:
    """`[R]` nats: where Dr. GRPO ends if its loss pays for the KL.

    The group's mean holds the response itself, so scores count (G - 1) / G and the KL fully.
    """
    return optimal_logps(world, BETA * GROUP / (GROUP - 1))


def exact_table(world: World) -> Table:
    """Where exact expectations lead."""
    start = distance(world.reference, world)
    arrivals = {name: arrival(make(), world) for name, make in (TO_THE_OPTIMUM | ELSEWHERE).items()}
    return Table(
        title="Where exact training ends",
        shows="KL(policy, optimum) in nats, the largest |log pi - log pi*| of a response, "
        "J = E[score] - beta KL(policy, reference) and the norm of the method's own last gradient "
        f"after {UPDATES} updates of Adam from the reference (KL {number(start.kl)}, gap "
        f"{number(start.gap)}, J {float(start.objective):.6f}; the optimum has "
        f"J {float(start.optimum):.6f}). Groups of {GROUP}; `loss` names a KL in the loss; "
        "with the other policy gradients it is in the score.",
        conclusion=f"The first {len(TO_THE_OPTIMUM)} end at pi_ref exp(score / beta) / Z: DPO, "
        "PPO, REINFORCE, RLOO, whoever charges the KL (k1) in the score, and an unbiased loss on "
        "the KL of whole responses. So do GRPO's advantages if the score pays for the KL, for at "
        "the optimum all scores are equal; but as they divide by a deviation that vanishes there, "
        "their gradient does not shrink on the way, and only the falling learning rate brings them "
        "to rest. The others do not converge to it, they are at rest elsewhere: Dr. GRPO with the "
        "KL in the loss at the optimum of beta G / (G - 1), for a group's mean that holds the "
        "response itself takes 1 / G off the score's gradient and nothing off the loss's; losses "
        "on tokens and GRPO as published where no closed form is known to us.",
        header=("method", "KL to optimum", "gap", "J", "gradient"),
        rows=[
            (name, number(x.kl), number(x.gap), f"{x.objective:.6f}", number(x.gradient))
            for name, x in arrivals.items()
        ],
    )


def sampled_distances(method: Method, world: World, *, seeds: int, updates: int) -> Distance:
    """How far every seed is from the optimum, each `[seeds]`."""
    settings = {"updates": updates, "learning_rate": SAMPLED_RATE}
    logits, _ = arrive(method, world, jnp.arange(seeds), **settings)
    return jax.vmap(lambda x: distance(x, world))(logits)


def sampled_table(world: World) -> Table:
    """Where samples lead."""
    lines = []
    for name, make in SAMPLED.items():
        found = sampled_distances(make(), world, seeds=SEEDS, updates=SAMPLED_UPDATES)
        cells = [f"{number(x.mean())} ± {number(x.std(ddof=1))}" for x in found[:2]]
        worst = number(found.gap.max())
        lines.append((name, *cells, worst, f"{float(found.objective.mean()):.6f}"))
    optimum = float(distance(world.reference, world).optimum)
    return Table(
        title="Where sampled training ends",
        shows=f"The same from {SAMPLES} responses a batch, drawn token by token: mean ± standard "
        f"deviation over {SEEDS} seeds after {SAMPLED_UPDATES} updates. The optimum has "
        f"J {optimum:.6f}.",
        conclusion="Samples lead to the same place. With the KL in the score their noise dies out "
        "by itself: at the optimum every response has the same score, so whatever is drawn, its "
        "advantage is 0. With the KL in the loss it does not: two terms that cancel only in the "
        "mean stay noisy, and the falling learning rate has to average them.",
        header=("method", "KL to optimum", "gap", "largest gap", "mean J"),
        rows=lines,
    )
