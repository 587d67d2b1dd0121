"""Baselines of the policy gradient: what they do to its mean and to its noise."""

from collections import OrderedDict  # jit sorts the keys of a plain dict

import jax
import jax.numpy as jnp

from benchmarks.exact.estimates import Quality, moments, quality
from benchmarks.exact.groups import all_groups, probabilities
from benchmarks.exact.methods import shaped
from benchmarks.exact.tables import Table, number
from benchmarks.exact.world import (
    World,
    logps,
    objective,
    params_of,
    policy_at,
    prefixes,
    rows,
    token_scores,
)
from jaxalign import (
    centred_advantages,
    greedy_baseline_advantages,
    grpo_advantages,
    leave_one_out_advantages,
    length_weighted_advantages,
    reinforce_loss,
)

SIZE = 4


def greedy_score(logits: jax.Array, scores: jax.Array) -> jax.Array:
    """The score of the response whose every token is the likeliest."""
    batch = rows()
    likeliest = jnp.argmax(logits, axis=1)[prefixes(batch.tokens)[:, :-1]]
    agrees = (batch.tokens[:, 1:] == likeliest) | ~batch.response_mask[:, 1:]
    return jnp.sum(jnp.where(jnp.all(agrees, axis=1), scores, 0))


def all_advantages(logits: jax.Array, scores: jax.Array, members) -> OrderedDict:
    """By name, `[N, SIZE]` advantages of every group."""
    group, mask = scores[members], jnp.ones(members.shape, bool)
    expected = jnp.sum(jnp.exp(logps(logits)) * scores)
    lengths = jnp.sum(rows().response_mask, axis=1)[members]

    def against(baseline):
        return greedy_baseline_advantages(group, jnp.full(len(group), baseline), mask)

    return OrderedDict(
        [
            ("none (REINFORCE)", group),
            ("expected score", against(expected)),
            ("score of the greedy response (ReMax)", against(greedy_score(logits, scores))),
            ("mean of the others (RLOO)", leave_one_out_advantages(group, mask)),
            ("mean of the group (Dr. GRPO)", centred_advantages(group, mask)),
            ("length-weighted mean (OPO)", length_weighted_advantages(group, lengths, mask)),
            ("mean and deviation (GRPO)", grpo_advantages(group, mask)),
        ]
    )


@jax.jit
def baseline_results(world: World) -> OrderedDict[str, Quality]:
    """`Quality` of the mean gradient of a group, for a policy half-way to the optimum."""
    logits = policy_at(world, 0.5)
    members, orders = all_groups(SIZE)
    weights = probabilities(logps(logits), members, orders)
    scores = jnp.sum(shaped(params_of(logits), world), axis=1)
    score_functions = jnp.sum(token_scores(logits), axis=1)
    truth = -jax.grad(objective)(logits, world)
    found = OrderedDict()
    for name, advantages in all_advantages(logits, scores, members).items():

        def losses(policy, advantages=advantages):
            return jnp.mean(reinforce_loss(policy, advantages), axis=1)

        estimate = moments(losses, logps(logits)[members], score_functions[members], weights)
        found[name] = quality(*estimate, truth)
    return found


def baseline_table(world: World) -> Table:
    """Rows are baselines."""
    results = baseline_results(world)
    return Table(
        title="Baselines",
        shows=f"The policy gradient of a group of {SIZE} responses, the KL (k1) in the score, on "
        "policy: cosine, size, bias and standard deviation relative to the true gradient, and the "
        "deviation relative to the estimate's own mean, which no rescaling changes.",
        conclusion="A baseline that does not read its own response is unbiased: none, a constant, "
        "the greedy response, the others of the group. The mean of the group holds the response "
        f"itself, which shortens the gradient by 1 / {SIZE} and nothing else; weighing by length "
        "turns it a little too. Dividing by the group's deviation changes direction and scale: "
        "groups that differ little count as much as those that differ much.",
        header=("baseline", "cosine", "size", "bias", "sd", "sd / size"),
        rows=[(name, *map(number, x), number(x.deviation / x.size)) for name, x in results.items()],
    )
