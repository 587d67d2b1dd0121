"""Examples of what `jaxalign/losses/ppo.py` offers."""

import numpy as np

import jaxalign
from tests.cases import draws
from tests.cases.case import Case, by_entries
from tests.cases.decisions import (
    BAD_CLIPS,
    BAD_DUAL,
    POLICY,
    TOKENS,
    decisions,
    extreme_logps,
    logps,
)
from tests.oracles import ppo
from tests.oracles.precision import saturating_exp


def clipped(logp, behaviour, advantage, *, clip_range, dual_clip=None) -> bool:
    """Whether a small move of the log-probability leaves Eq. 7 where it is."""
    settings = (*np.broadcast_to(clip_range, 2), dual_clip)
    near = [ppo.policy_loss(logp + h, behaviour, advantage, *settings) for h in (0, 1e-9, -1e-9)]
    return advantage != 0 and near[0] == near[1] == near[2]


def value_arguments(rng):
    values, behaviour, returns = rng.normal(size=(3, *draws.SHAPE))
    return {"values": values, "behaviour_values": behaviour, "returns": returns}


def extreme_values(rng):
    return {name: 1e4 * x for name, x in value_arguments(rng).items()}


def value_clipped(value, behaviour, target, *, value_clip_range) -> bool:
    near = [ppo.value_loss(value + h, behaviour, target, value_clip_range) for h in (0, 1e-9)]
    return near[0] == near[1] and value != target


VALUE_CLIP = (({"value_clip_range": 0.0}, "value_clip_range must be above 0"),)


def policy_loss(*step, clip_range, dual_clip=None):
    return ppo.policy_loss(*step, *np.broadcast_to(clip_range, 2), dual_clip)


def three(rng):
    return dict(
        zip(
            ("policy_losses", "value_losses", "entropies"),
            rng.normal(size=(3, *draws.SHAPE)),
            strict=True,
        )
    )


CASES = (
    Case(
        function=jaxalign.probability_ratios,
        draw=logps,
        extremes=lambda rng: extreme_logps(),
        oracle=by_entries(lambda logp, behaviour: saturating_exp(logp - behaviour)),
        trained=("logps",),
        frozen=("behaviour_logps",),
    ),
    Case(
        function=jaxalign.ppo_policy_loss,
        oracle=by_entries(policy_loss),
        settings=POLICY,
        invalid=(*BAD_CLIPS, BAD_DUAL),
        **TOKENS,
    ),
    Case(
        function=jaxalign.ppo_policy_clipped,
        draw=decisions,
        oracle=by_entries(clipped),
        settings=POLICY,
        invalid=(*BAD_CLIPS, BAD_DUAL),
        order=0,
    ),
    Case(
        function=jaxalign.ppo_value_loss,
        draw=value_arguments,
        extremes=extreme_values,
        oracle=by_entries(lambda *step, value_clip_range: ppo.value_loss(*step, value_clip_range)),
        settings=({"value_clip_range": 0.4}, {"value_clip_range": None}),
        trained=("values",),
        frozen=("behaviour_values", "returns"),
        invalid=VALUE_CLIP,
    ),
    Case(
        function=jaxalign.ppo_value_clipped,
        draw=value_arguments,
        oracle=by_entries(value_clipped),
        settings=({"value_clip_range": 0.4}, {"value_clip_range": None}),
        invalid=VALUE_CLIP,
        order=0,
    ),
    Case(
        function=jaxalign.ppo_loss,
        draw=three,
        oracle=lambda policy, value, entropy, *, value_coef, entropy_coef: (
            np.asarray(policy) + value_coef * np.asarray(value) - entropy_coef * np.asarray(entropy)
        ),
        settings=({"value_coef": 0.5, "entropy_coef": 0.1},),
        trained=("policy_losses", "value_losses", "entropies"),
    ),
)
