"""Estimators of the KL: as numbers, as losses, and in the reward."""

import functools
from collections import OrderedDict  # jit sorts the keys of a plain dict
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from benchmarks.exact.estimates import Quality, moments, quality
from benchmarks.exact.tables import Table, number
from benchmarks.exact.world import (
    World,
    kl,
    logps,
    params_of,
    policy_at,
    rows,
    table_logps,
)
from jaxalign import (
    discounted_returns,
    importance_corrected_k3,
    k1,
    k2,
    k3,
    masked_sum,
    ppo_policy_loss,
    sequence_logps,
)

UNCLIPPED = 1e9
SHARES = (0.25, 1.0, 2.0)


def corrected(policy, reference, behaviour):
    return importance_corrected_k3(policy, behaviour, reference)


def uncorrected(estimator):
    """An estimator that does not look at the policy that sampled."""
    return lambda policy, reference, behaviour: estimator(policy, reference)


ESTIMATORS = {
    "k1": uncorrected(k1),
    "k2": uncorrected(k2),
    "k3": uncorrected(k3),
    "corrected k3": corrected,
}


def of_responses(estimator):
    """`(policy, reference, behaviour) -> [R]` from log-probabilities of whole responses."""

    def estimate(*logits):
        return estimator(*(logps(x) for x in logits))

    return estimate


def of_tokens(estimator):
    """The same from each token's, summed over the response."""

    def estimate(*logits):
        batch = rows()
        each = estimator(*(table_logps(params_of(x), batch) for x in logits))
        return masked_sum(each, batch.response_mask, axis=1)

    return estimate


def value(estimate, policy, reference, behaviour) -> tuple[jax.Array, jax.Array]:
    """Bias and standard deviation of the estimate of one sample, relative to the KL."""
    weights = jnp.exp(logps(behaviour))
    estimates, truth = estimate(policy, reference, behaviour), kl(policy, reference)
    mean = jnp.sum(weights * estimates)
    deviation = jnp.sqrt(jnp.sum(weights * (estimates - mean) ** 2))
    return (mean - truth) / truth, deviation / truth


def as_loss(estimate, policy, reference, behaviour) -> Quality:
    """Its expected gradient over samples of the behaviour policy."""
    weights = jnp.exp(logps(behaviour))
    losses = moments(lambda logits: estimate(logits, reference, behaviour), policy, weights)
    return quality(*losses, jax.grad(kl)(policy, reference))


def in_reward(estimator, policy, reference, behaviour, *, to_go: bool) -> Quality:
    """The policy gradient of the estimate as a price, frozen when the samples were drawn.

    Args:
      estimator: of tokens; one of `ESTIMATORS`.
      policy, reference, behaviour: logits.
      to_go: each token pays for itself and what follows, not for what came before.
    """
    batch = rows()
    mask = batch.response_mask
    acting, frozen = (table_logps(params_of(x), batch) for x in (behaviour, reference))
    costs = jnp.where(mask, estimator(acting, frozen, acting), 0)
    totals = discounted_returns(-costs, mask, gamma=1.0)

    def losses(logits):
        current = table_logps(params_of(logits), batch)
        if to_go:
            each = ppo_policy_loss(current, acting, totals, clip_range=UNCLIPPED)
            return masked_sum(each, mask, axis=1)
        summed = (sequence_logps(x, mask) for x in (current, acting, -costs))
        return ppo_policy_loss(*summed, clip_range=UNCLIPPED)

    estimate = moments(losses, policy, jnp.exp(logps(behaviour)))
    return quality(*estimate, jax.grad(kl)(policy, reference))


@functools.partial(jax.jit, static_argnames="off_policy")
def policies(world: World, *, off_policy: bool) -> tuple[jax.Array, jax.Array]:
    """`[K, PREFIXES, VOCABULARY]`: a policy at every distance, and the one that samples for it."""
    shares = [(share, share / 2 if off_policy else share) for share in SHARES]
    return tuple(
        jnp.stack([policy_at(world, x) for x in side]) for side in zip(*shares, strict=True)
    )


@jax.jit
def value_results(world: World, policy: jax.Array, behaviour: jax.Array) -> OrderedDict:
    """`value` of every estimator, each `[K]`, and `KL` itself."""

    def at(policy, behaviour):
        places = world.reference, behaviour
        found = OrderedDict(KL=kl(policy, world.reference))
        for place, level in (("response", of_responses), ("tokens", of_tokens)):
            for name, estimator in ESTIMATORS.items():
                found[f"{name}, {place}"] = value(level(estimator), policy, *places)
        return found

    return jax.vmap(at)(policy, behaviour)


@jax.jit
def loss_results(world: World, policy: jax.Array, behaviour: jax.Array) -> OrderedDict:
    """`Quality` of every estimator as a loss and in the reward, each `[K]`, and `KL` itself."""

    def at(policy, behaviour):
        places = policy, world.reference, behaviour
        found = OrderedDict(KL=kl(policy, world.reference))
        for place, level in (("response", of_responses), ("tokens", of_tokens)):
            for name, estimator in ESTIMATORS.items():
                found[f"loss of {place}, {name}"] = as_loss(level(estimator), *places)
        for place, to_go in (("response", False), ("tokens to go", True)):
            for name in ("k1", "k2", "k3"):
                result = in_reward(ESTIMATORS[name], *places, to_go=to_go)
                found[f"reward of {place}, {name}"] = result
        return found

    return jax.vmap(at)(policy, behaviour)


def cells(results: OrderedDict, heads: Sequence[str], distances: int):
    """Header and rows: for each distance, the parts of every result."""
    far = [number(x) for x in results.pop("KL")[:distances]]
    header = ("estimator", *(f"{head}, KL {x}" for x in far for head in heads))
    lines = [
        (name, *(number(part[k]) for k in range(distances) for part in parts))
        for name, parts in results.items()
    ]
    return header, lines


def value_table(world: World, *, off_policy: bool) -> Table:
    """Bias and deviation of the number itself, at several distances."""
    results = value_results(world, *policies(world, off_policy=off_policy))
    header, lines = cells(results, ("bias", "sd"), len(SHARES))
    drawn = "a policy half-way back to the reference" if off_policy else "the policy itself"
    conclusion = (
        "Off policy only the corrected k3 of the whole response is unbiased: a token's own ratio "
        "leaves out that the prefix, too, has become more or less likely. k1 is off by as much as "
        "the KL itself."
        if off_policy
        else "On policy k1 and k3 are unbiased. Near the reference k3 has a fraction of k1's "
        "deviation, far from it k3 of whole responses has more (the ratio's tail), summed over "
        "tokens it has less. k2 is biased, little near the reference."
    )
    return Table(
        title=f"KL estimators as numbers, {'off' if off_policy else 'on'} policy",
        shows="Bias and standard deviation of one sample's estimate of KL(policy, reference), "
        f"relative to it; samples are drawn from {drawn}; `tokens` sums the estimates of a "
        "response's tokens.",
        conclusion=conclusion,
        header=header,
        rows=lines,
    )


def loss_table(world: World, *, off_policy: bool) -> Table:
    """Direction, size, bias and deviation of the gradient, at two distances."""
    results = loss_results(world, *policies(world, off_policy=off_policy))
    header, lines = cells(results, ("cosine", "size", "bias", "sd"), 2)
    drawn = "a policy half-way back to the reference" if off_policy else "the policy itself"
    conclusion = (
        "Off policy only the corrected k3 of the whole response keeps the right gradient. A price "
        "that was frozen when the samples were drawn (in the reward) is that of the old policy, "
        "here about half. k1 as a loss has a mean now, and it points the wrong way."
        if off_policy
        else "Right on policy: k1 in the reward (to go: the same mean, less noise), and k2 or "
        "corrected k3 of the whole response as a loss. As a loss k1 is noise of mean 0, and k3 "
        "pulls towards the other KL, KL(reference, policy). Any loss on tokens is biased, "
        "corrected or not: it misses that a token decides which prefixes follow "
        "([Tang and Munos 2025](https://arxiv.org/abs/2506.09477)). k2 and k3 in the reward are "
        "wrong: the derivative of the price is missing, which for k1 has mean 0."
    )
    return Table(
        title=f"KL estimators as losses and in the reward, {'off' if off_policy else 'on'} policy",
        shows="The mean gradient over samples against the true gradient of KL(policy, reference): "
        "cosine, size, bias, and standard deviation of one sample, all relative to the true one; "
        f"samples are drawn from {drawn}; `to go` charges a token for its own KL and what follows.",
        conclusion=conclusion,
        header=header,
        rows=lines,
    )
