"""What each method trains on and minimises in the exact world, with the library's own losses.

Where the library has an objective (DPO, PPO) it is used; the other losses are applied here as a
user would. Expectations are exact: every response, pair or group is in the batch, weighted by its
probability. With `samples` a batch holds that many responses drawn from the policy instead.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.exact.groups import all_groups, probabilities
from benchmarks.exact.world import (
    BETA,
    RESPONSES,
    World,
    draw,
    logps,
    params_of,
    rows,
    table_logps,
    table_policy,
    values_of,
)
from jaxalign import (
    PairLogps,
    gae,
    grpo_loss,
    importance_corrected_k3,
    k1,
    k2,
    k3,
    masked_sum,
    reinforce_loss,
    rloo_loss,
    sequence_logps,
    shaped_rewards,
)
from jaxalign.batches.experience import Experience
from jaxalign.batches.preferences import PreferenceBatch
from jaxalign.batches.tokens import pytree
from jaxalign.losses.aggregation import sequence_sum
from jaxalign.losses.dpo import DPO
from jaxalign.objectives import paired, ppo

GROUP = 3
CLIP = 0.2


@dataclasses.dataclass(frozen=True)
class Method:
    """Where a batch comes from, the loss, and how many updates reuse the batch.

    collect: `(params, world, key) -> batch`, with the parameters of the behaviour policy.
    loss_fn: `(params, batch, key) -> (sum, (weight, metric sums))`, as `train_step` takes it.
    epochs: updates from one batch.
    """

    collect: Callable[[Any, World, jax.Array], Any]
    loss_fn: Callable[..., Any]
    epochs: int = 1


@pytree
class Groups:
    """Groups of responses as indices into `world.rows()`.

    members: `[N, G]`. weights: `[N]`, the probability of each group.
    behaviour_logps, reference_logps: `[R, T]` nats. advantages: `[N, G]`.
    """

    members: jax.Array
    weights: jax.Array
    behaviour_logps: jax.Array
    reference_logps: jax.Array
    advantages: jax.Array


def take(batch, indices):
    """These rows of a batch."""
    return jax.tree.map(lambda leaf: leaf[indices], batch)


def dpo_method(*, online: bool = False) -> Method:
    """All ordered pairs, labelled by people who prefer i to j with sigmoid(s_i - s_j).

    The pairs are those of the reference, or of the policy itself (online).
    """
    first, second = np.nonzero(~np.eye(len(RESPONSES), dtype=bool))

    def collect(params, world: World, key) -> PreferenceBatch:
        del key
        sampler = logps(params["logits"] if online else world.reference)
        reference = logps(world.reference)
        prefers = jax.nn.sigmoid(world.scores[first] - world.scores[second])
        return PreferenceBatch(
            chosen=take(rows(), first),
            rejected=take(rows(), second),
            reference=PairLogps(chosen=reference[first], rejected=reference[second]),
            weights=jnp.exp(sampler[first] + sampler[second]) * prefers,
        )

    return Method(collect, paired(table_logps, DPO.given(beta=BETA)))


def shaped(params, world: World) -> jax.Array:
    """`[R, T]` rewards: the score at the end, less the KL (k1) of each token."""
    batch = rows()
    policy, reference = (table_logps(x, batch) for x in (params, params_of(world.reference)))
    return shaped_rewards(world.scores, k1(policy, reference), batch.response_mask, kl_coef=BETA)


def experience(params, world: World, gae_lambda: float) -> Experience:
    """All responses; the mask holds their probabilities, so that sums over it are expectations."""
    batch, policy, values = rows(), table_logps(params, rows()), values_of(params)
    rewards, mask = shaped(params, world), batch.response_mask
    advantages, returns = gae(rewards, values, mask, gamma=1.0, gae_lambda=gae_lambda)
    return Experience(
        inputs=batch,
        actions=batch.tokens,
        mask=mask * jnp.exp(sequence_logps(policy, mask))[:, None],
        behaviour_logps=policy,
        values=values,
        advantages=advantages,
        returns=returns,
        index=batch.index,
    )


def ppo_method(*, gae_lambda: float = 0.95, epochs: int = 4, samples: int | None = None) -> Method:
    """The KL in the reward, GAE, the clip, and values that are learned beside the policy."""

    def collect(params, world, key):
        everything = experience(params, world, gae_lambda)
        if samples is None:
            return everything
        drawn = draw(params["logits"], key, samples)
        return dataclasses.replace(take(everything, drawn), mask=rows().response_mask[drawn])

    return Method(collect, ppo(table_policy, clip_range=CLIP, value_coef=0.5), epochs)


def reinforce_method() -> Method:
    """The return from each token on, without any baseline."""

    def collect(params, world, key):
        del key
        return experience(params_of(params["logits"]), world, gae_lambda=1.0)

    def loss_fn(params, batch: Experience, key):
        del key
        losses = reinforce_loss(table_logps(params, batch.inputs), batch.advantages)
        return masked_sum(losses, batch.mask), (jnp.ones(()), {})

    return Method(collect, loss_fn)


def group_method(
    advantages, loss, *, kl_in_score: bool, epochs: int = 1, samples: int | None = None
) -> Method:
    """Groups of scores, their advantages, and a loss of each response of each group.

    Args:
      advantages: `(scores [N, G], mask [N, G]) -> [N, G]`.
      loss: `(policy [B, T], behaviour [B, T], reference [B, T], mask [B, T], advantages [B]) ->
        [B]` from log-probabilities.
      kl_in_score: whether the score pays for the KL of the response; if not, the loss has to.
      epochs: updates from one batch.
      samples: responses a batch, a multiple of GROUP; None for all groups.
    """
    everyone, orders = all_groups(GROUP)

    def collect(params, world: World, key) -> Groups:
        if samples is None:
            members = jnp.asarray(everyone)
            weights = probabilities(logps(params["logits"]), everyone, orders)
        else:
            members = draw(params["logits"], key, samples).reshape(-1, GROUP)
            weights = jnp.full(len(members), 1 / len(members))
        scores = jnp.sum(shaped(params, world), axis=1) if kl_in_score else world.scores
        return Groups(
            members=members,
            weights=weights,
            behaviour_logps=table_logps(params, rows()),
            reference_logps=table_logps(params_of(world.reference), rows()),
            advantages=advantages(scores[members], jnp.ones(members.shape, bool)),
        )

    def loss_fn(params, batch: Groups, key):
        del key
        those, weights = batch.members.reshape(-1), jnp.repeat(batch.weights / GROUP, GROUP)
        arrays = (table_logps(params, rows()), batch.behaviour_logps, batch.reference_logps)
        mask = rows().response_mask[those]
        losses = loss(*(x[those] for x in arrays), mask, batch.advantages.reshape(-1))
        return masked_sum(losses, weights), (jnp.ones(()), {})

    return Method(collect, loss_fn, epochs)


def rloo(policy, behaviour, reference, mask, advantages):
    """RLOO: one clipped ratio a response; the KL is in the score."""
    del reference
    return rloo_loss(policy, behaviour, mask, advantages, clip_range=CLIP)


def token_grpo(kl, aggregation):
    """GRPO's loss, summed over the tokens with the weights that `aggregation` gives them.

    Args:
      kl: `(policy, behaviour, reference) -> [B, T]`, the term of the loss.
      aggregation: one of `jaxalign.losses.aggregation`.
    """

    def loss(policy, behaviour, reference, mask, advantages):
        kl_term = kl(policy, behaviour, reference)
        losses = grpo_loss(policy, behaviour, advantages, kl_term, clip_range=CLIP, kl_coef=BETA)
        return masked_sum(losses, aggregation(mask)[0], axis=1)

    return loss


def response_grpo(kl):
    """The same with the whole response as one action, so that the KL is that of responses."""
    one_action = token_grpo(kl, sequence_sum)

    def loss(policy, behaviour, reference, mask, advantages):
        summed = (sequence_logps(x, mask)[:, None] for x in (policy, behaviour, reference))
        return one_action(*summed, jnp.any(mask, axis=1, keepdims=True), advantages)

    return loss


def no_kl(policy, behaviour, reference):
    """For scores that pay for the KL themselves."""
    del behaviour, reference
    return jnp.zeros_like(policy)


def k2_term(policy, behaviour, reference):
    """Right on policy, of whole responses."""
    del behaviour
    return k2(policy, reference)


def k3_term(policy, behaviour, reference):
    """That of GRPO as published."""
    del behaviour
    return k3(policy, reference)


def corrected_term(policy, behaviour, reference):
    """Right off policy too, of whole responses."""
    return importance_corrected_k3(policy, behaviour, reference)
