"""Losses on pairs of responses."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxalign.batches.preferences import (
    PairLengths,
    PairLogps,
    PreferenceBatch,
    SharedPreferenceBatch,
)
from jaxalign.batches.tokens import TokenBatch
from jaxalign.diagnostics import concordance
from jaxalign.errors import UserError
from jaxalign.logprobs import sequence_logps
from jaxalign.losses import PAIR_LOSSES
from jaxalign.losses.bco import implicit_reward_sums, no_shift, shift_after
from jaxalign.losses.declarations import Loss
from jaxalign.losses.dpo import implicit_rewards, no_reference
from jaxalign.losses.ld_dpo import length_desensitised_logps
from jaxalign.losses.wpo import wpo_weights
from jaxalign.numerics.collectives import psum
from jaxalign.numerics.masking import masked_sum
from jaxalign.numerics.types import Params, Tree
from jaxalign.objectives.keys import example_keys


def token_logps_of_sides(
    sides: Sequence[TokenBatch], token_logps: Callable[..., Any], params: Params, key: jax.Array
) -> list[jax.Array]:
    """`[B, T]` log-probabilities of each `TokenBatch`, in one forward pass over all rows."""
    rows = jax.tree.map(lambda *arrays: jnp.concatenate(arrays), *sides)
    keys = jnp.concatenate(
        [
            example_keys(jax.random.fold_in(key, number), side.index)
            for number, side in enumerate(sides)
        ]
    )
    return jnp.split(token_logps(params, rows, keys), len(sides))


def response_lengths(masks: Sequence[jax.Array]) -> PairLengths:
    """Response tokens of both sides, `[B]` float32; 1 for a row of padding (of weight 0)."""
    chosen, rejected = (jnp.maximum(mask.sum(axis=1), 1).astype(jnp.float32) for mask in masks[:2])
    return PairLengths(chosen=chosen, rejected=rejected)


def paired(
    token_logps: Callable[..., Any],
    loss: Loss,
    *,
    ld_alpha: float | None = None,
    wpo: bool = False,
    reference_free: bool = False,
    axis_name: str | None = None,
):
    """Any loss on pairs; weight: pairs.

    The metrics `rewards/*` are implicit rewards, beta (log pi - log pi_ref), without log pi_ref
    for losses without a reference, and per token for the length-normalised ones.

    BCO's shift is of the whole batch and of all before. Where the loss sees a batch in
    micro-batches, let `train_step` add the rewards up beforehand, `measure=paired_sums(...)`, and
    keep their mean in its statistics, `track=shift_after`.

    Args:
      token_logps: `(params, TokenBatch, keys) -> [B, T]` log-probabilities of the policy; with
        `wpo` these and log sum_v pi(v)^2, a pair.
      loss: a declared one with its hyper-parameters, `DPO` or `IPO.given(beta=0.3)`.
      ld_alpha: weight of the tokens beyond the shorter response (LD-DPO), in [0, 1]; the
        reference's log-probabilities must be weighted alike. None: all tokens count alike.
      wpo: weight pairs by how likely the policy is to say them, samples of its own by about 1
        (WPO with sampled alignment); as in TRL, no pair weighs more than 1.
      reference_free: take the uniform reference (`no_reference`) in place of the batch's.
      axis_name: mapped axis that the other devices' rows are on, for losses with statistics of the
        whole batch.

    Raises:
      UserError: the loss has no use for `ld_alpha`.
    """
    check_modifiers(loss, ld_alpha=ld_alpha, reference_free=reference_free)
    modifiers: Any = {"ld_alpha": ld_alpha, "wpo": wpo, "reference_free": reference_free}
    measure = paired_sums(token_logps, loss, **modifiers)

    def loss_fn(
        params: Params,
        batch: PreferenceBatch | SharedPreferenceBatch,
        key: jax.Array,
        statistics: Tree = None,
        measured: Tree = None,
    ):
        tokens, masks, collisions = _read_sides(loss, batch, token_logps, params, key, wpo)
        pair_weights = None
        if collisions is not None:
            sides = zip(tokens[:2], masks[:2], collisions[:2], strict=True)
            chosen, rejected = (wpo_weights(*side) for side in sides)
            pair_weights = jnp.minimum(chosen * rejected, 1)
        summed, lengths = response_sums(tokens, masks, ld_alpha), response_lengths(masks)
        policy = PairLogps(chosen=summed[0], rejected=summed[1])
        inputs: dict[str, Any] = {
            "policy": policy,
            "reference": reference_for(loss, batch, policy, reference_free),
            "lengths": lengths,
            "weights": batch.weights,
            "axis_name": axis_name,
        }
        if measure is not None:
            if measured is None:
                measured = psum(measure(params, batch, key), axis_name)
            inputs["shift"] = shift_after(statistics or no_shift(), measured).mean
        if loss.needs("gold_logps"):
            gold_lengths = jnp.maximum(masks[2].sum(axis=1), 1).astype(jnp.float32)
            inputs |= {"gold_logps": summed[2], "gold_lengths": gold_lengths}
        losses = loss(inputs)
        if pair_weights is not None:
            losses = losses * pair_weights
        start = inputs["reference"] if loss.needs("reference") else no_reference(policy)
        rewards = implicit_rewards(policy, start, beta=loss.reward_scale)
        if loss.per_token:
            rewards = PairLogps(
                chosen=rewards.chosen / lengths.chosen, rejected=rewards.rejected / lengths.rejected
            )
        margin = rewards.chosen - rewards.rejected
        per_pair = {
            "rewards/chosen": rewards.chosen,
            "rewards/rejected": rewards.rejected,
            "rewards/margin": margin,
            "rewards/accuracy": concordance(margin, 0.0),
            "logps/chosen": policy.chosen,
            "logps/rejected": policy.rejected,
        }
        if pair_weights is not None:
            per_pair["wpo/weight"] = pair_weights
        if loss.needs("shift"):
            per_pair["bco/reward"] = (rewards.chosen + rewards.rejected) / 2
            per_pair["bco/shift"] = jnp.broadcast_to(inputs["shift"], margin.shape)
        sums = {name: masked_sum(value, batch.weights) for name, value in per_pair.items()}
        return masked_sum(losses, batch.weights), (batch.weights.sum(), sums)

    return loss_fn


def paired_sums(
    token_logps: Callable[..., Any],
    loss: Loss,
    *,
    ld_alpha: float | None = None,
    wpo: bool = False,
    reference_free: bool = False,
):
    """What a loss reads of the whole batch, for `train_step(measure=...)`: for BCO the sum and the
    number of the implicit rewards of both sides; None for a loss without such a sum.

    Args:
      token_logps, loss, ld_alpha, wpo, reference_free: as in `paired`.
    """
    if not loss.needs("shift"):
        return None

    def measure(params: Params, batch: PreferenceBatch | SharedPreferenceBatch, key: jax.Array):
        frozen = jax.lax.stop_gradient(params)
        tokens, masks, _ = _read_sides(loss, batch, token_logps, frozen, key, wpo)
        chosen, rejected = response_sums(tokens[:2], masks[:2], ld_alpha)
        policy = PairLogps(chosen=chosen, rejected=rejected)
        reference = reference_for(loss, batch, policy, reference_free)
        rewards = implicit_rewards(policy, reference, beta=loss.reward_scale)
        both = jnp.stack([rewards.chosen, rewards.rejected])
        return implicit_reward_sums(both, jnp.broadcast_to(batch.weights, both.shape))

    return measure


def reference_for(
    loss: Loss,
    batch: PreferenceBatch | SharedPreferenceBatch,
    policy: PairLogps,
    reference_free: bool,
) -> Any:
    """The reference's log-probabilities that the loss reads; None for a loss without.

    Raises:
      UserError: the batch has none.
    """
    if reference_free:
        return no_reference(policy)
    if loss.needs("reference") and batch.reference is None:
        raise UserError(
            f"loss {loss.name} needs the reference's log-probabilities in batch.reference"
        )
    return batch.reference


def response_sums(
    tokens: Sequence[jax.Array], masks: Sequence[jax.Array], ld_alpha: float | None
) -> list[jax.Array]:
    """`[B]` log-probabilities of the responses of each side, with `ld_alpha` those of LD-DPO."""
    sides = list(zip(tokens, masks, strict=True))
    if ld_alpha is None:
        return [sequence_logps(*side) for side in sides]
    lengths = response_lengths(masks)
    public = jnp.minimum(lengths.chosen, lengths.rejected)
    return [length_desensitised_logps(*side, public, alpha=ld_alpha) for side in sides]


def check_modifiers(loss: Loss, *, ld_alpha: float | None, reference_free: bool = False) -> None:
    """Raise a one-line `UserError` for a modifier that the loss has no use for."""
    if ld_alpha is not None and not (loss.needs("reference") and not loss.per_token):
        those = [n for n, x in PAIR_LOSSES.items() if x.needs("reference") and not x.per_token]
        raise UserError(f"loss {loss.name} takes no ld_alpha; these do: {', '.join(those)}")
    if reference_free and not loss.needs("reference"):
        raise UserError(f"loss {loss.name} has no reference anyway; leave reference_free out")


def _read_sides(
    loss: Loss,
    batch: PreferenceBatch | SharedPreferenceBatch,
    token_logps: Callable[..., Any],
    params: Params,
    key: jax.Array,
    wpo: bool,
):
    """Token log-probabilities of each side, their masks, and with `wpo` what it reads beside them.

    There are two sides, or three.
    """
    read = _stacked(token_logps) if wpo else token_logps
    tokens, masks = _tokens_of_sides(loss, batch, read, params, key)
    if not wpo:
        return tokens, masks, None
    tokens, collisions = ([x[..., k] for x in tokens] for k in (0, 1))
    return tokens, masks, collisions


def _stacked(read: Any):
    """The pair that a model returns as one array, `[..., 2]`, which splits by rows like one."""
    return lambda *arguments: jnp.stack(read(*arguments), axis=-1)


def _tokens_of_sides(
    loss: Loss,
    batch: PreferenceBatch | SharedPreferenceBatch,
    token_logps: Callable[..., Any],
    params: Params,
    key: jax.Array,
):
    """Token log-probabilities of each side and their masks: two responses, or three."""
    count = 3 if loss.needs("gold_logps") else 2
    if isinstance(batch, SharedPreferenceBatch):
        shared = batch.sides
        _check_sides(loss.name, shared.mask.shape[1], count)
        logps = token_logps(params, shared, example_keys(key, shared.index))
        return [logps[:, k] for k in range(count)], [
            shared.response_mask[:, k] for k in range(count)
        ]
    sides = [side for side in (batch.chosen, batch.rejected, batch.gold) if side is not None]
    _check_sides(loss.name, len(sides), count)
    logps = token_logps_of_sides(sides[:count], token_logps, params, key)
    return logps, [side.response_mask for side in sides[:count]]


def _check_sides(name: str, given: int, wanted: int) -> None:
    if given < wanted:
        raise UserError(f"loss {name} needs a third response, gold, in the batch")
