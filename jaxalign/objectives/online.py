"""Losses on fresh responses of the policy, compared by a judge."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxalign.batches.preferences import OnlineBatch
from jaxalign.batches.shared_prompts import shared_sides
from jaxalign.diagnostics import concordance
from jaxalign.errors import UserError
from jaxalign.logprobs import sequence_logps
from jaxalign.losses.dpo import dpo_loss, implicit_rewards
from jaxalign.losses.nash_md import nash_md_loss
from jaxalign.losses.online_dpo import ranked
from jaxalign.losses.xpo import xpo_loss
from jaxalign.numerics.masking import masked_sum
from jaxalign.objectives.keys import example_keys
from jaxalign.objectives.pair_losses import (
    BETA,
    PAIR,
    PAIR_LOSSES,
    SMOOTHED,
    NamedLoss,
    hyperparameters_of,
)
from jaxalign.objectives.preferences import token_logps_of_sides

SELF = ("first_logps", "first_reference", "preferences")
ONLINE_LOSSES: dict[str, NamedLoss] = {
    "online_dpo": NamedLoss(dpo_loss, PAIR, SMOOTHED),  # or one of ONLINE_PAIR_LOSSES in its place
    "xpo": NamedLoss(xpo_loss, (*PAIR, "second_logps"), BETA | {"alpha": 1e-5}),
    "nash_md": NamedLoss(nash_md_loss, SELF, {"beta": 0.05}),
}
# Those that read two log-probabilities a side and nothing else: any pair of samples has them.
ONLINE_PAIR_LOSSES = {name: loss for name, loss in PAIR_LOSSES.items() if loss.inputs == PAIR}
# What draws the second response: weight of the reference in its mixture with the policy.
OPPONENTS = {"online_dpo": 0.0, "xpo": 1.0, "nash_md": 0.125}


def online_hyperparameters(
    loss: str, pair_loss: str, given: Mapping[str, float | None]
) -> dict[str, float]:
    """Those of that loss: what is given (not None), its defaults otherwise.

    Raises:
      UserError: no such loss, or it does not take what was given.

    >>> online_hyperparameters("online_dpo", "ipo", {"beta": 0.3})
    {'beta': 0.3}
    """
    if loss != "online_dpo" and pair_loss != "dpo":
        raise UserError(f"loss {loss} takes no pair_loss; it belongs to online_dpo")
    if loss == "online_dpo":
        return hyperparameters_of(ONLINE_PAIR_LOSSES, pair_loss, given)
    return hyperparameters_of(ONLINE_LOSSES, loss, given)


def online(
    token_logps,
    loss: str = "online_dpo",
    *,
    pair_loss: str = "dpo",
    score_scale: float = 1.0,
    length: int | None = None,
    **given: float | None,
):
    """Any loss on pairs of fresh responses, by its name in `ONLINE_LOSSES`; weight: pairs.

    online_dpo and xpo train on the pair as the judge ranks it (the papers' annotator draws its
    label); a tie weighs nothing. nash_md
    trains on the policy's own sample by its chance to be preferred,
    sigmoid(score_scale (score - score of the opponent's)). Samples, scores and the reference's
    log-probabilities are data: no gradient goes there.

    Args:
      token_logps: `(params, TokenBatch, keys) -> [B, T]` log-probabilities of the policy, at the
        temperature that it was sampled at; with a length `(params, SharedPrompts, keys) ->
        [B, K, R]`.
      loss: its name.
      pair_loss: for online_dpo, the loss on the ranked pair, a name in `ONLINE_PAIR_LOSSES`.
      score_scale: log-odds of a preference for each unit of the scores' difference, for nash_md.
      length: the longest response that sampling allowed, in tokens: all begin in one column, and
        their prompt is read once. None: they may stand anywhere, and rows are read one by one.
      given: hyper-parameters; None, or none at all, is the loss's own default.

    Raises:
      UserError: no such loss, or it does not take what is given.

    Source: Guo et al. 2024, https://arxiv.org/abs/2402.04792, Alg. 1 (online DPO); Xie et al. 2024,
    https://arxiv.org/abs/2405.21046, Alg. 1 (XPO); Munos et al. 2023,
    https://arxiv.org/abs/2312.00886, the policy gradient of Nash-MD.
    """
    hyperparameters = online_hyperparameters(loss, pair_loss, given)
    named = ONLINE_PAIR_LOSSES[pair_loss] if loss == "online_dpo" else ONLINE_LOSSES[loss]
    uses_pair = named.needs("policy")

    def loss_fn(params, batch: OnlineBatch, key):
        first, second = batch.first, batch.second
        sides = [side.responses for side in ((first, second) if uses_pair else (first,))]
        if length is None:
            tokens = token_logps_of_sides(sides, token_logps, params, key)
            masks = [side.response_mask for side in sides]
        else:
            rows = shared_sides(sides, longest=length)
            found = token_logps(params, rows, example_keys(key, rows.index))
            tokens, masks = (jnp.unstack(x, axis=1) for x in (found, rows.response_mask))
        logps = [sequence_logps(*side) for side in zip(tokens, masks, strict=True)]
        weights = batch.weights
        inputs: dict[str, Any] = {"first_logps": logps[0], "first_reference": first.reference}
        metrics: dict[str, Any] = {}
        if uses_pair:
            scores = first.scores, second.scores
            policy, untied = ranked(logps[0], logps[1], *scores)
            reference, _ = ranked(first.reference, second.reference, *scores)
            inputs |= {"policy": policy, "reference": reference, "second_logps": logps[1]}
            metrics["scores/tied"] = (masked_sum(1 - untied, weights), weights.sum())
            weights = weights * untied
            per_row = _pair_metrics(policy, reference, hyperparameters["beta"])
        else:
            inputs["preferences"] = jax.nn.sigmoid(score_scale * (first.scores - second.scores))
            per_row = {"nash/preference": inputs["preferences"], "logps/first": logps[0]}
        losses = named(inputs, hyperparameters)
        metrics |= {name: masked_sum(value, weights) for name, value in per_row.items()}
        return masked_sum(losses, weights), (weights.sum(), metrics)

    return loss_fn


def _pair_metrics(policy, reference, beta: float) -> dict[str, jax.Array]:
    """Implicit rewards of the ranked pair, as for pairs from a file."""
    rewards = implicit_rewards(policy, reference, beta=beta)
    margin = rewards.chosen - rewards.rejected
    return {
        "rewards/chosen": rewards.chosen,
        "rewards/rejected": rewards.rejected,
        "rewards/margin": margin,
        "rewards/accuracy": concordance(margin, 0.0),
        "logps/chosen": policy.chosen,
        "logps/rejected": policy.rejected,
    }
