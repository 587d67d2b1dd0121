"""What clipping and truncating importance ratios costs in bias and saves in variance."""

import functools
from collections import OrderedDict  # jit sorts the keys of a plain dict

import jax
import jax.numpy as jnp

from benchmarks.exact.estimates import moments, quality
from benchmarks.exact.tables import Table, number
from benchmarks.exact.world import (
    World,
    kl,
    logps,
    objective,
    params_of,
    policy_at,
    rows,
    table_logps,
    token_scores,
)
from jaxalign import (
    cispo_loss,
    each_token,
    masked_sum,
    ppo_policy_loss,
    reinforce_loss,
    rloo_loss,
    sequence_log_ratios,
    sequence_logps,
    truncated_importance_weights,
)
from jaxalign.losses.aggregation import sequence_mean

SHARES = (0.0, 0.25, 1.0, -1.0)
UNCLIPPED = 1e9
CAP = 2.0


def response(policy, behaviour, mask, advantages, *, clip_range):
    """One ratio for the whole response."""
    return rloo_loss(policy, behaviour, mask, advantages, clip_range=clip_range)


def truncated_response(policy, behaviour, mask, advantages):
    """REINFORCE of the response times its truncated ratio."""
    summed, acting = sequence_logps(policy, mask), sequence_logps(behaviour, mask)
    weights = truncated_importance_weights(summed, acting, cap=CAP)
    return weights * reinforce_loss(summed, advantages)


def tokens(policy, behaviour, mask, advantages, *, loss, **settings):
    """One ratio for each token, as PPO has it."""
    each = loss(policy, behaviour, each_token(advantages, policy), **settings)
    return masked_sum(each, mask, axis=1)


def truncated_tokens(policy, behaviour, advantages):
    """REINFORCE of each token times its truncated ratio."""
    weights = truncated_importance_weights(policy, behaviour, cap=CAP)
    return weights * reinforce_loss(policy, advantages)


def gspo(policy, behaviour, mask, advantages, *, clip_range):
    """The geometric mean of a response's ratios, and the mean over its tokens."""
    ratios = sequence_log_ratios(policy, behaviour, mask)
    repeated = each_token(advantages, policy)
    each = ppo_policy_loss(ratios, jnp.zeros_like(ratios), repeated, clip_range=clip_range)
    return masked_sum(each, sequence_mean(mask)[0], axis=1)


def clipped_tokens(clip_range, **settings):
    """PPO's loss."""
    return functools.partial(tokens, loss=ppo_policy_loss, clip_range=clip_range, **settings)


VARIANTS = {
    "response: unclipped": functools.partial(response, clip_range=UNCLIPPED),
    "response: clip 0.2 (RLOO)": functools.partial(response, clip_range=0.2),
    "response: cap 2": truncated_response,
    "token: unclipped": clipped_tokens(UNCLIPPED),
    "token: clip 0.1": clipped_tokens(0.1),
    "token: clip 0.2 (PPO)": clipped_tokens(0.2),
    "token: clip 0.3": clipped_tokens(0.3),
    "token: clip 0.2, 0.28 (DAPO)": clipped_tokens((0.2, 0.28)),
    "token: clip 0.2, dual clip 1.5": clipped_tokens(0.2, dual_clip=1.5),
    "token: cap 2": functools.partial(tokens, loss=truncated_tokens),
    "token: cap 1.28 (CISPO)": functools.partial(tokens, loss=cispo_loss, highest=1.28),
    "mean: unclipped": functools.partial(gspo, clip_range=UNCLIPPED),
    "mean: clip 3e-4, 4e-4 (GSPO)": functools.partial(gspo, clip_range=(3e-4, 4e-4)),
}


@jax.jit
def clip_results(world: World) -> OrderedDict:
    """`Quality` of every variant, each `[K]`; `KL` and `ESS`, the share of effective samples."""
    batch, acting = rows(), world.reference
    behaviour = table_logps(params_of(acting), batch)
    weights = jnp.exp(logps(acting))
    advantages = world.scores - jnp.sum(weights * world.scores)

    def at(policy):
        truth = -jax.grad(objective)(policy, world, beta=0.0)
        current = table_logps(params_of(policy), batch)
        ratios = jnp.exp(logps(policy) - logps(acting))
        effective = jnp.sum(weights * ratios) ** 2 / jnp.sum(weights * ratios**2)
        found = OrderedDict(KL=kl(policy, acting), ESS=effective)
        for name, variant in VARIANTS.items():

            def losses(current, variant=variant):
                return variant(current, behaviour, batch.response_mask, advantages)

            found[name] = quality(*moments(losses, current, token_scores(policy), weights), truth)
        return found

    return jax.vmap(at)(jnp.stack([policy_at(world, share) for share in SHARES]))


def clip_table(world: World) -> Table:
    """Rows are variants, columns distances."""
    results = clip_results(world)
    far, samples = ([number(x) for x in results.pop(name)] for name in ("KL", "ESS"))
    heads = [
        f"{what}, {name}"
        for name in (f"KL {far[1]}", f"KL {far[2]}", f"KL {far[3]} astray")
        for what in ("cosine", "bias", "sd")
    ]
    lines = [
        (name, *(number(part[k]) for k in range(1, len(SHARES)) for part in (x[0], x[2], x[3])))
        for name, x in results.items()
    ]
    on_policy = number(results["mean: unclipped"].bias[0])
    return Table(
        title="The clip, off policy",
        shows="The gradient of E[score] from one response of the behaviour policy (the reference), "
        "advantage score - E[score], relative to the true gradient at the policy. The policy has "
        "gone from the reference a quarter of the way to the optimum, all the way, and as far in "
        f"the opposite direction (effective sample size {', '.join(samples[1:])} of 1). Ratios are "
        "those of the response, of each token, or the geometric mean over the tokens.",
        conclusion="Only the response's own ratio is unbiased. A token's ratio leaves out the "
        "prefix's: a small error near the behaviour policy, a large one far away, always with less "
        "variance. The clip does not estimate the gradient, it brakes: it drops what has moved far "
        "enough, so on the way to the optimum what is left may even point back, while for a policy "
        "that went astray hardly anything is clipped. A cap keeps the direction where the clip "
        "loses it. On policy all are unbiased but the geometric mean (GSPO), which weighs a "
        f"response by 1 / length: its bias there is {on_policy}.",
        header=("ratio", *heads),
        rows=lines,
    )
