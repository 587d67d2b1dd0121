"""Losses on pairs of responses."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxalign.batches.preferences import (
    PairLengths,
    PairLogps,
    PreferenceBatch,
    SharedPreferenceBatch,
)
from jaxalign.errors import UserError
from jaxalign.logprobs import sequence_logps
from jaxalign.losses import PAIR_LOSSES
from jaxalign.losses.declarations import Loss
from jaxalign.losses.dpo import implicit_rewards
from jaxalign.losses.ld_dpo import length_desensitised_logps
from jaxalign.losses.wpo import wpo_weights
from jaxalign.numerics.masking import masked_sum
from jaxalign.objectives.keys import example_keys


def token_logps_of_sides(sides, token_logps, params, key) -> list[jax.Array]:
    """`[B, T]` log-probabilities of each `TokenBatch`, in one forward pass over all rows."""
    rows = jax.tree.map(lambda *arrays: jnp.concatenate(arrays), *sides)
    keys = jnp.concatenate(
        [
            example_keys(jax.random.fold_in(key, number), side.index)
            for number, side in enumerate(sides)
        ]
    )
    return jnp.split(token_logps(params, rows, keys), len(sides))


def both_sides(batch: PreferenceBatch, token_logps, params, key) -> PairLogps:
    """Summed response log-probabilities of both sides in one forward pass of 2B rows."""
    sides = (batch.chosen, batch.rejected)
    logps = token_logps_of_sides(sides, token_logps, params, key)
    chosen, rejected = (
        sequence_logps(x, side.response_mask) for x, side in zip(logps, sides, strict=True)
    )
    return PairLogps(chosen=chosen, rejected=rejected)


def response_lengths(masks) -> PairLengths:
    """Response tokens of both sides, `[B]` float32; 1 for a row of padding (of weight 0)."""
    chosen, rejected = (jnp.maximum(mask.sum(axis=1), 1).astype(jnp.float32) for mask in masks[:2])
    return PairLengths(chosen=chosen, rejected=rejected)


def paired(
    token_logps,
    loss: Loss,
    *,
    ld_alpha: float | None = None,
    wpo: bool = False,
    axis_name: str | None = None,
):
    """Any loss on pairs; weight: pairs.

    The metrics `rewards/*` are implicit rewards, beta (log pi - log pi_ref), without log pi_ref
    for losses without a reference, and per token for the length-normalised ones.

    Args:
      token_logps: `(params, TokenBatch, keys) -> [B, T]` log-probabilities of the policy; with
        `wpo` these and log sum_v pi(v)^2, a pair.
      loss: a declared one with its hyper-parameters, `DPO` or `IPO.given(beta=0.3)`.
      ld_alpha: weight of the tokens beyond the shorter response (LD-DPO), in [0, 1]; the
        reference's log-probabilities must be weighted alike. None: all tokens count alike.
      wpo: weight pairs by how likely the policy is to say them, samples of its own by about 1
        (WPO with sampled alignment); as in TRL, no pair weighs more than 1.
      axis_name: mapped axis that the other devices' rows are on, for losses with statistics of the
        whole batch.

    Raises:
      UserError: the loss has no use for `ld_alpha`.
    """
    check_modifiers(loss, ld_alpha=ld_alpha)

    def loss_fn(params, batch: PreferenceBatch | SharedPreferenceBatch, key, statistics=None):
        read = _stacked(token_logps) if wpo else token_logps
        tokens, masks = _tokens_of_sides(loss, batch, read, params, key)
        pair_weights = None
        if wpo:
            tokens, collisions = ([x[..., k] for x in tokens] for k in (0, 1))
            sides = zip(tokens[:2], masks[:2], collisions[:2], strict=True)
            chosen, rejected = (wpo_weights(*side) for side in sides)
            pair_weights = jnp.minimum(chosen * rejected, 1)
        summed = [sequence_logps(*side) for side in zip(tokens, masks, strict=True)]
        lengths = response_lengths(masks)
        if ld_alpha is not None:
            public = jnp.minimum(lengths.chosen, lengths.rejected)
            summed = [
                length_desensitised_logps(x, mask, public, alpha=ld_alpha)
                for x, mask in zip(tokens, masks, strict=True)
            ]
        policy = PairLogps(chosen=summed[0], rejected=summed[1])
        inputs: dict[str, Any] = {
            "policy": policy,
            "reference": batch.reference,
            "lengths": lengths,
            "weights": batch.weights,
            "axis_name": axis_name,
            "shift": 0.0 if statistics is None else statistics["shift"],
        }
        if loss.needs("gold_logps"):
            gold_lengths = jnp.maximum(masks[2].sum(axis=1), 1).astype(jnp.float32)
            inputs |= {"gold_logps": summed[2], "gold_lengths": gold_lengths}
        losses = loss(inputs)
        if pair_weights is not None:
            losses = losses * pair_weights
        start = batch.reference if loss.needs("reference") else None
        start = jax.tree.map(jnp.zeros_like, policy) if start is None else start
        rewards = implicit_rewards(policy, start, beta=loss.hyperparameters["beta"])
        if loss.per_token:
            rewards = PairLogps(
                chosen=rewards.chosen / lengths.chosen, rejected=rewards.rejected / lengths.rejected
            )
        margin = rewards.chosen - rewards.rejected
        per_pair = {
            "rewards/chosen": rewards.chosen,
            "rewards/rejected": rewards.rejected,
            "rewards/margin": margin,
            "rewards/accuracy": (margin > 0) + 0.5 * (margin == 0),
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


def _stacked(read):
    """The pair that a model returns as one array, `[..., 2]`, which splits by rows like one."""
    return lambda *arguments: jnp.stack(read(*arguments), axis=-1)


def check_modifiers(loss: Loss, *, ld_alpha: float | None, reference_free: bool = False) -> None:
    """Raise a one-line `UserError` for a modifier that the loss has no use for."""
    if ld_alpha is not None and not (loss.needs("reference") and not loss.per_token):
        those = [n for n, x in PAIR_LOSSES.items() if x.needs("reference") and not x.per_token]
        raise UserError(f"loss {loss.name} takes no ld_alpha; these do: {', '.join(those)}")
    if reference_free and not loss.needs("reference"):
        raise UserError(f"loss {loss.name} has no reference anyway; leave reference_free out")


def no_shift() -> dict[str, jax.Array]:
    """What BCO's running mean starts from: no rewards yet, a shift of 0."""
    return {"shift": jnp.float32(0), "count": jnp.float32(0)}


def track_shift(statistics, metrics, weight) -> dict[str, jax.Array]:
    """The mean of the rewards of all batches so far; `train_step` calls it after each."""
    count = statistics["count"] + weight
    step = jnp.where(count > 0, weight / jnp.where(count > 0, count, 1), 0)
    shift = statistics["shift"] + step * (metrics["bco/reward"] - statistics["shift"])
    return {"shift": shift, "count": count}


def _tokens_of_sides(loss: Loss, batch, token_logps, params, key):
    """Token log-probabilities of each side and their masks: two responses, or three."""
    if loss.needs("reference") and batch.reference is None:
        raise UserError(
            f"loss {loss.name} needs the reference's log-probabilities in batch.reference"
        )
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
