"""Objectives on pairs of responses."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp

from jaxalign.batches.functions import BatchSums, LossFn, LossSums, TokenLogps, TokenPairs
from jaxalign.batches.preferences import (
    PairLengths,
    PairLogps,
    PreferenceBatch,
    SharedPreferenceBatch,
)
from jaxalign.batches.tokens import TokenBatch
from jaxalign.errors import UserError
from jaxalign.logprobs import sequence_logps
from jaxalign.losses import PAIR_LOSSES
from jaxalign.losses.bco import RunningMean, implicit_reward_sums
from jaxalign.losses.declarations import Loss
from jaxalign.losses.dpo import implicit_rewards, no_reference
from jaxalign.losses.ld_dpo import length_desensitised_logps
from jaxalign.losses.length_normalised_dpo import per_token
from jaxalign.losses.wpo import wpo_weights
from jaxalign.numerics.masking import masked_sum
from jaxalign.numerics.types import Params
from jaxalign.objectives.keys import example_keys
from jaxalign.objectives.metrics import pair_metrics
from jaxalign.objectives.shift import batch_shift

Pairs = PreferenceBatch | SharedPreferenceBatch
Sides = list[jax.Array]  # an array for each response of a pair, chosen first


def paired(
    token_logps: TokenLogps | TokenPairs,
    loss: Loss,
    *,
    ld_alpha: float | None = None,
    wpo: bool = False,
    reference_free: bool = False,
    axis_name: str | None = None,
) -> LossFn:
    """Objective of a declared loss on pairs of responses; weight: pairs.

    The metrics `rewards/*` are implicit rewards, beta (log pi - log pi_ref), without log pi_ref
    for losses without a reference, and per token for the length-normalised ones.

    BCO's shift is the mean implicit reward of this batch and of all before, which `train_step`
    keeps in its statistics, `track=shift_after_batch`. Where the loss sees a batch in
    micro-batches, let it add up the rewards beforehand: `measure=paired_sums(...)`.

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
    read = _inputs_of(token_logps, loss, ld_alpha, wpo=wpo, reference_free=reference_free)

    def loss_fn(
        params: Params,
        batch: Pairs,
        key: jax.Array,
        statistics: RunningMean | None = None,
        measured: Any = None,
    ) -> LossSums:
        inputs, pair_weights = read(params, batch, key)
        rewards = _implicit_rewards(loss, inputs)
        inputs |= {"weights": batch.weights, "axis_name": axis_name}
        metrics: dict[str, Any] = {}
        if loss.needs("shift"):
            own = _reward_sums(rewards, batch.weights)
            inputs["shift"] = batch_shift(
                own, before=statistics, measured=measured, axis_name=axis_name
            )
            metrics |= {"bco/shift": inputs["shift"] * batch.weights.sum(), "bco/reward": own}
        losses = loss(inputs)
        compared = per_token(rewards, inputs["lengths"]) if loss.per_token else rewards
        per_pair = pair_metrics(inputs["policy"], compared)
        if pair_weights is not None:
            losses = losses * pair_weights
            per_pair["wpo/weight"] = pair_weights
        metrics |= {name: masked_sum(value, batch.weights) for name, value in per_pair.items()}
        return masked_sum(losses, batch.weights), (batch.weights.sum(), metrics)

    return loss_fn


def paired_sums(
    token_logps: TokenLogps | TokenPairs,
    loss: Loss,
    *,
    ld_alpha: float | None = None,
    wpo: bool = False,
    reference_free: bool = False,
) -> BatchSums | None:
    """Sums over a whole batch that a loss reads, for `train_step(measure=...)`: for BCO the sum and
    the number of the implicit rewards of both sides; None for a loss without such a sum.

    Args:
      token_logps, loss, ld_alpha, wpo, reference_free: as in `paired`.
    """
    if not loss.needs("shift"):
        return None
    read = _inputs_of(token_logps, loss, ld_alpha, wpo=wpo, reference_free=reference_free)

    def measure(params: Params, batch: Pairs, key: jax.Array):
        inputs, _ = read(jax.lax.stop_gradient(params), batch, key)
        return _reward_sums(_implicit_rewards(loss, inputs), batch.weights)

    return measure


def check_modifiers(loss: Loss, *, ld_alpha: float | None, reference_free: bool = False) -> None:
    """Raise a one-line `UserError` for a modifier that the loss has no use for."""
    if ld_alpha is not None and not (loss.needs("reference") and not loss.per_token):
        those = [n for n, x in PAIR_LOSSES.items() if x.needs("reference") and not x.per_token]
        raise UserError(f"loss {loss.name} takes no ld_alpha; these do: {', '.join(those)}")
    if reference_free and not loss.needs("reference"):
        raise UserError(f"loss {loss.name} has no reference anyway; leave reference_free out")


def token_logps_of_sides(
    sides: Sequence[TokenBatch], token_logps: TokenLogps, params: Params, key: jax.Array
) -> Sides:
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
    return PairLengths(chosen=_length(masks[0]), rejected=_length(masks[1]))


def _inputs_of(
    token_logps: TokenLogps | TokenPairs,
    loss: Loss,
    ld_alpha: float | None,
    *,
    wpo: bool,
    reference_free: bool,
) -> Callable[[Params, Pairs, jax.Array], tuple[dict[str, Any], jax.Array | None]]:
    """Inputs of a loss from one forward pass, by name, and with `wpo` the weights of pairs, `[B]`.

    The function takes `(params, batch, key)`.
    """
    count = 3 if loss.needs("gold_logps") else 2
    logps_of = _stacked(cast(TokenPairs, token_logps)) if wpo else cast(TokenLogps, token_logps)

    def read(params: Params, batch: Pairs, key: jax.Array):
        if _sides_in(batch) < count:
            raise UserError(f"loss {loss.name} needs a third response, gold, in the batch")
        tokens, masks = _tokens_of_sides(logps_of, params, batch, key, count=count)
        pair_weights = None
        if wpo:
            tokens, collisions = ([x[..., k] for x in tokens] for k in (0, 1))
            pair_weights = _wpo_pair_weights(tokens, masks, collisions)
        inputs = _logps_and_lengths(tokens, masks, ld_alpha)
        inputs["reference"] = _reference_for(loss, batch, inputs["policy"], reference_free)
        return inputs, pair_weights

    return read


def _stacked(token_pairs: TokenPairs) -> TokenLogps:
    """Both numbers of each token in one array, `[..., 2]`, which splits by rows like one."""
    return lambda *arguments: jnp.stack(token_pairs(*arguments), axis=-1)


def _sides_in(batch: Pairs) -> int:
    """The number of responses to each prompt: two, or three with gold."""
    if isinstance(batch, SharedPreferenceBatch):
        return batch.sides.mask.shape[1]
    return 2 if batch.gold is None else 3


def _tokens_of_sides(
    logps_of: TokenLogps, params: Params, batch: Pairs, key: jax.Array, *, count: int
) -> tuple[Sides, Sides]:
    """Token log-probabilities and response masks of the first `count` sides, `[B, T]` each."""
    if isinstance(batch, SharedPreferenceBatch):
        shared = batch.sides
        logps = logps_of(params, shared, example_keys(key, shared.index))
        both = (logps, shared.response_mask)
        tokens, masks = ([x[:, k] for k in range(count)] for x in both)
        return tokens, masks
    sides = [side for side in (batch.chosen, batch.rejected, batch.gold) if side is not None]
    tokens = token_logps_of_sides(sides[:count], logps_of, params, key)
    return tokens, [side.response_mask for side in sides[:count]]


def _wpo_pair_weights(tokens: Sides, masks: Sides, collisions: Sides) -> jax.Array:
    """WPO's weight of each pair, the product of its sides', at most 1: `[B]`."""
    sides = zip(tokens[:2], masks[:2], collisions[:2], strict=True)
    chosen, rejected = (wpo_weights(*side) for side in sides)
    return jnp.minimum(chosen * rejected, 1)


def _logps_and_lengths(tokens: Sides, masks: Sides, ld_alpha: float | None) -> dict[str, Any]:
    """Response log-probabilities and lengths of each side, `[B]`, as inputs of a loss by name."""
    logps = _response_logps(tokens, masks, ld_alpha)
    policy, lengths = PairLogps(chosen=logps[0], rejected=logps[1]), response_lengths(masks)
    inputs: dict[str, Any] = {"policy": policy, "lengths": lengths}
    if len(logps) > 2:
        inputs |= {"gold_logps": logps[2], "gold_lengths": _length(masks[2])}
    return inputs


def _response_logps(tokens: Sides, masks: Sides, ld_alpha: float | None) -> Sides:
    """`[B]` log-probabilities of the responses of each side, with `ld_alpha` those of LD-DPO."""
    sides = list(zip(tokens, masks, strict=True))
    if ld_alpha is None:
        return [sequence_logps(*side) for side in sides]
    lengths = response_lengths(masks)
    public = jnp.minimum(lengths.chosen, lengths.rejected)
    return [length_desensitised_logps(*side, public, alpha=ld_alpha) for side in sides]


def _length(mask: jax.Array) -> jax.Array:
    return jnp.maximum(mask.sum(axis=1), 1).astype(jnp.float32)


def _reference_for(
    loss: Loss, batch: Pairs, policy: PairLogps, reference_free: bool
) -> PairLogps | None:
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


def _implicit_rewards(loss: Loss, inputs: dict[str, Any]) -> PairLogps:
    """Implicit rewards of both sides, in total; of log pi alone for a loss without reference."""
    policy = inputs["policy"]
    start = inputs["reference"] if loss.needs("reference") else no_reference(policy)
    return implicit_rewards(policy, start, beta=loss.reward_scale)


def _reward_sums(rewards: PairLogps, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The sum and the number of the implicit rewards of both sides."""
    both = jnp.stack([rewards.chosen, rewards.rejected])
    return implicit_reward_sums(both, jnp.broadcast_to(weights, both.shape))
