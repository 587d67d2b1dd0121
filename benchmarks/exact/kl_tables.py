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
    token_scores,
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
from jaxalign.batches.tokens import pytree

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
    """`(policy, reference, behaviour) -> [R]`, `[R, T]` each, of the whole responses."""

    def estimate(*token_logps):
        return estimator(*(sequence_logps(x, rows().response_mask) for x in token_logps))

    return estimate


def of_tokens(estimator):
    """The same from each token's, summed over the response."""

    def estimate(*token_logps):
        return masked_sum(estimator(*token_logps), rows().response_mask, axis=1)

    return estimate


LEVELS = {"response": of_responses, "tokens": of_tokens}


@pytree
class Place:
    """Log-probabilities `[R, T]` of three policies, the truth, and who samples.

    kl: KL(policy, reference), nats. gradient: of it. scores: of `world.token_scores`.
    weights: `[R]` probabilities of the responses under the behaviour policy.
    """

    policy: jax.Array
    reference: jax.Array
    behaviour: jax.Array
    kl: jax.Array
    gradient: jax.Array
    scores: jax.Array
    weights: jax.Array


def place_of(world: World, policy: jax.Array, behaviour: jax.Array) -> Place:
    """From logits."""
    each = (table_logps(params_of(x), rows()) for x in (policy, world.reference, behaviour))
    divergence, gradient = jax.value_and_grad(kl)(policy, world.reference)
    return Place(
        **dict(zip(("policy", "reference", "behaviour"), each, strict=True)),
        kl=divergence,
        gradient=gradient,
        scores=token_scores(policy),
        weights=jnp.exp(logps(behaviour)),
    )


def value(estimate, at: Place) -> tuple[jax.Array, jax.Array]:
    """Bias and standard deviation of the estimate of one sample, relative to the KL."""
    estimates = estimate(at.policy, at.reference, at.behaviour)
    mean = jnp.sum(at.weights * estimates)
    deviation = jnp.sqrt(jnp.sum(at.weights * (estimates - mean) ** 2))
    return (mean - at.kl) / at.kl, deviation / at.kl


def as_loss(estimate, at: Place) -> Quality:
    """Its expected gradient over samples of the behaviour policy."""

    def losses(policy):
        return estimate(policy, at.reference, at.behaviour)

    return quality(*moments(losses, at.policy, at.scores, at.weights), at.gradient)


def in_reward(estimator, at: Place, *, to_go: bool) -> Quality:
    """The policy gradient of the estimate as a penalty, frozen when the samples were drawn.

    Args:
      estimator: of tokens; one of `ESTIMATORS`.
      at: where.
      to_go: each token pays for itself and what follows, not for what came before.
    """
    mask = rows().response_mask
    penalties = jnp.where(mask, estimator(at.behaviour, at.reference, at.behaviour), 0)
    to_come = discounted_returns(-penalties, mask, gamma=1.0)

    def losses(policy):
        if to_go:
            each = ppo_policy_loss(policy, at.behaviour, to_come, clip_range=UNCLIPPED)
            return masked_sum(each, mask, axis=1)
        summed = (sequence_logps(x, mask) for x in (policy, at.behaviour, -penalties))
        return ppo_policy_loss(*summed, clip_range=UNCLIPPED)

    return quality(*moments(losses, at.policy, at.scores, at.weights), at.gradient)


@functools.partial(jax.jit, static_argnames="off_policy")
def policies(world: World, *, off_policy: bool) -> tuple[jax.Array, jax.Array]:
    """`[K, PREFIXES, VOCABULARY]`: a policy at every distance, and who samples for it."""
    shares = [(share, share / 2 if off_policy else share) for share in SHARES]
    return tuple(
        jnp.stack([policy_at(world, x) for x in side]) for side in zip(*shares, strict=True)
    )


@jax.jit
def value_results(world: World, policy: jax.Array, behaviour: jax.Array) -> OrderedDict:
    """`value` of every estimator, each `[K]`, and `KL` itself."""

    def results(policy, behaviour):
        at = place_of(world, policy, behaviour)
        found = OrderedDict(KL=at.kl)
        for place, level in LEVELS.items():
            for name, estimator in ESTIMATORS.items():
                found[f"{name}, {place}"] = value(level(estimator), at)
        return found

    return jax.vmap(results)(policy, behaviour)


@jax.jit
def loss_results(world: World, policy: jax.Array, behaviour: jax.Array) -> OrderedDict:
    """`Quality` of every estimator as a loss and in the reward, each `[K]`, and `KL` itself."""

    def results(policy, behaviour):
        at = place_of(world, policy, behaviour)
        found = OrderedDict(KL=at.kl)
        for place, level in LEVELS.items():
            for name, estimator in ESTIMATORS.items():
                found[f"loss of {place}, {name}"] = as_loss(level(estimator), at)
        for place, to_go in (("response", False), ("tokens to go", True)):
            for name in ("k1", "k2", "k3"):
                found[f"reward of {place}, {name}"] = in_reward(ESTIMATORS[name], at, to_go=to_go)
        return found

    return jax.vmap(results)(policy, behaviour)


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
        "Off policy only the corrected k3 of the whole response keeps the right gradient. A "
        "penalty that was frozen when the samples were drawn (in the reward) is that of the old "
        "policy, here about half. k1 as a loss has a mean now, and it points the wrong way."
        if off_policy
        else "Right on policy: k1 in the reward (to go: the same mean, less noise), and k2 or "
        "corrected k3 of the whole response as a loss. As a loss k1 is noise of mean 0, and k3 "
        "pulls towards the other KL, KL(reference, policy). Any loss on tokens is biased, "
        "corrected or not: it misses that a token decides which prefixes follow "
        "([Tang and Munos 2025](https://arxiv.org/abs/2506.09477)). k2 and k3 in the reward are "
        "wrong: the derivative of the penalty is missing, which for k1 has mean 0."
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
