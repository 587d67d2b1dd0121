"""Losses on the policy's own decisions."""

import numpy as np
from tests.specimens.specimen import Specimen, by_entries

import jaxalign
from tests.oracles import policy_gradients as oracle
from tests.oracles import ppo
from tests.oracles.precision import saturating_exp
from tests.specimens import draws

SHAPE = (draws.ROWS, draws.TOKENS)
BAD_CLIPS = (
    ({"clip_range": 0.0}, "clip_range must be above 0"),
    ({"clip_range": (0.2, 0.0)}, "clip_range must be above 0"),
    ({"clip_range": (0.0, 0.2)}, "clip_range must be above 0"),
)
BAD_DUAL = ({"clip_range": (0.2, 0.3), "dual_clip": 1.3}, "dual_clip must be above 1")


def logps(rng):
    """Policy and behaviour, some tokens far apart and some the same."""
    behaviour = draws.tokens(rng)
    moved = behaviour + rng.choice([-0.7, -0.1, 0.0, 0.1, 0.7], SHAPE) * rng.uniform(
        0.9, 1.1, SHAPE
    )
    return {"logps": moved, "behaviour_logps": behaviour}


def decisions(rng):
    """Advantages of both signs and 0."""
    return logps(rng) | {"advantages": np.where(rng.random(SHAPE) < 0.1, 0, rng.normal(size=SHAPE))}


def responses(rng):
    advantages = np.array([1.3, -0.4, -1.1, 0.7])
    return logps(rng) | {"mask": draws.mask(rng), "advantages": advantages}


def extreme_logps():
    return {
        "logps": np.broadcast_to([-1e4, -1.0, 0.0, -30.0, -2.0], SHAPE),
        "behaviour_logps": np.broadcast_to([-1.0, -1e4, 0.0, -1.0, -2.0], SHAPE),
    }


def extreme_decisions(rng):
    return extreme_logps() | {"advantages": np.where(rng.random(SHAPE) < 0.3, 0.0, 1.0)}


def extreme_responses(rng):
    given = extreme_logps()
    given["logps"] = given["logps"] * np.array([[1.0], [0.0], [1.0], [0.1]])
    return given | {"mask": draws.mask(rng), "advantages": np.array([1.0, -1.0, -1.0, 0.0])}


def clipped(logp, behaviour, advantage, *, clip_range, dual_clip=None) -> bool:
    """Whether a small move of the log-probability leaves Eq. 7 where it is."""
    settings = (*np.broadcast_to(clip_range, 2), dual_clip)
    near = [ppo.policy_loss(logp + h, behaviour, advantage, *settings) for h in (0, 1e-9, -1e-9)]
    return advantage != 0 and near[0] == near[1] == near[2]


def value_arguments(rng):
    values, behaviour, returns = rng.normal(size=(3, *SHAPE))
    return {"values": values, "behaviour_values": behaviour, "returns": returns}


def extreme_values(rng):
    return {name: 1e4 * x for name, x in value_arguments(rng).items()}


def value_clipped(value, behaviour, target, *, value_clip_range) -> bool:
    near = [ppo.value_loss(value + h, behaviour, target, value_clip_range) for h in (0, 1e-9)]
    return near[0] == near[1] and value != target


TOKENS = {"draw": decisions, "trained": ("logps",), "frozen": ("behaviour_logps", "advantages")}
RESPONSES = TOKENS | {
    "draw": responses,
    "extremes": extreme_responses,
    "masked": ("logps", "behaviour_logps"),
}
VALUE_CLIP = (({"value_clip_range": 0.0}, "value_clip_range must be above 0 or None"),)
POLICY = (
    {"clip_range": 0.2},
    {"clip_range": (0.05, 0.3)},
    {"clip_range": (0.3, 0.05), "dual_clip": 1.5},
)


def policy_loss(*step, clip_range, dual_clip=None):
    return ppo.policy_loss(*step, *np.broadcast_to(clip_range, 2), dual_clip)


def three(rng):
    return dict(
        zip(
            ("policy_losses", "value_losses", "entropies"),
            rng.normal(size=(3, *SHAPE)),
            strict=True,
        )
    )


SPECIMENS = (
    Specimen(
        function=jaxalign.probability_ratios,
        draw=logps,
        extremes=lambda rng: extreme_logps(),
        oracle=by_entries(lambda logp, behaviour: saturating_exp(logp - behaviour)),
        trained=("logps",),
        frozen=("behaviour_logps",),
    ),
    Specimen(
        function=jaxalign.ppo_policy_loss,
        oracle=by_entries(policy_loss),
        settings=POLICY,
        invalid=(*BAD_CLIPS, BAD_DUAL),
        **TOKENS,
    ),
    Specimen(
        function=jaxalign.ppo_policy_clipped,
        draw=decisions,
        oracle=by_entries(clipped),
        settings=POLICY,
        invalid=(*BAD_CLIPS, BAD_DUAL),
        order=0,
    ),
    Specimen(
        function=jaxalign.ppo_value_loss,
        draw=value_arguments,
        extremes=extreme_values,
        oracle=by_entries(lambda *step, value_clip_range: ppo.value_loss(*step, value_clip_range)),
        settings=({"value_clip_range": 0.4}, {"value_clip_range": None}),
        trained=("values",),
        frozen=("behaviour_values", "returns"),
        invalid=VALUE_CLIP,
    ),
    Specimen(
        function=jaxalign.ppo_value_clipped,
        draw=value_arguments,
        oracle=by_entries(value_clipped),
        settings=({"value_clip_range": 0.4}, {"value_clip_range": None}),
        invalid=VALUE_CLIP,
        order=0,
    ),
    Specimen(
        function=jaxalign.ppo_loss,
        draw=three,
        oracle=lambda policy, value, entropy, *, value_coef, entropy_coef: (
            np.asarray(policy) + value_coef * np.asarray(value) - entropy_coef * np.asarray(entropy)
        ),
        settings=({"value_coef": 0.5, "entropy_coef": 0.1},),
        trained=("policy_losses", "value_losses", "entropies"),
    ),
    Specimen(
        function=jaxalign.each_token,
        draw=lambda rng: {"advantages": rng.normal(size=draws.ROWS), "logps": draws.tokens(rng)},
        oracle=oracle.each_token,
        trained=("advantages",),
        frozen=("logps",),
    ),
    Specimen(
        function=jaxalign.grpo_loss,
        draw=lambda rng: (
            logps(rng) | {"advantages": np.array([1.3, -0.4, 0.0, 0.7]), "kl": rng.random(SHAPE)}
        ),
        oracle=oracle.grpo,
        settings=tuple(policy | {"kl_coef": 0.3} for policy in POLICY),
        trained=("logps", "kl"),
        frozen=("behaviour_logps", "advantages"),
        invalid=tuple((bad | {"kl_coef": 0.3}, said) for bad, said in (*BAD_CLIPS, BAD_DUAL)),
    ),
    Specimen(
        function=jaxalign.cispo_loss,
        extremes=extreme_decisions,
        oracle=by_entries(oracle.cispo),
        settings=({"highest": 1.2}, {"highest": 1.5, "lowest": 0.8}),
        invalid=(
            ({"highest": 0.0}, "bounds must be 0 <= lowest < highest"),
            ({"highest": 1.0, "lowest": -0.1}, "bounds must be 0 <= lowest < highest"),
            ({"highest": 1.0, "lowest": 1.0}, "bounds must be 0 <= lowest < highest"),
        ),
        order=0,
        **TOKENS,
    ),
    Specimen(
        function=jaxalign.sapo_loss,
        extremes=extreme_decisions,
        oracle=by_entries(oracle.sapo),
        settings=({}, {"positive_temperature": 0.5, "negative_temperature": 2.0}),
        invalid=(
            ({"positive_temperature": 0.0}, "temperatures must be above 0"),
            ({"negative_temperature": 0.0}, "temperatures must be above 0"),
        ),
        **TOKENS,
    ),
    Specimen(
        function=jaxalign.reinforce_loss,
        draw=lambda rng: {name: x for name, x in decisions(rng).items() if "behaviour" not in name},
        oracle=by_entries(lambda logp, advantage: -advantage * logp),
        trained=("logps",),
        frozen=("advantages",),
    ),
    Specimen(
        function=jaxalign.rloo_loss,
        oracle=oracle.rloo,
        settings=({"clip_range": 0.2}, {"clip_range": (0.05, 0.4)}),
        invalid=BAD_CLIPS,
        **RESPONSES | {"extremes": None},
    ),
    Specimen(
        function=jaxalign.sequence_log_ratios,
        draw=lambda rng: {n: x for n, x in responses(rng).items() if n != "advantages"},
        oracle=oracle.sequence_log_ratios,
        trained=("logps",),
        frozen=("behaviour_logps",),
        masked=("logps", "behaviour_logps"),
    ),
    Specimen(
        function=jaxalign.token_log_ratios,
        draw=lambda rng: {n: x for n, x in responses(rng).items() if n != "advantages"},
        oracle=oracle.sequence_log_ratios,
        trained=("logps",),
        frozen=("behaviour_logps",),
        order=0,
    ),
    Specimen(
        function=jaxalign.gmpo_loss,
        oracle=oracle.gmpo,
        settings=({"clip_range": 0.4}, {"clip_range": (0.5, 0.05)}),
        invalid=BAD_CLIPS,
        **RESPONSES,
    ),
    Specimen(
        function=jaxalign.vespo_weights,
        draw=responses,
        extremes=extreme_responses,
        oracle=oracle.vespo,
        settings=({}, {"positive": (1.5, 0.5), "negative": (0.5, 2.5)}),
        frozen=("logps", "behaviour_logps", "advantages"),
        masked=("logps", "behaviour_logps"),
        order=0,
    ),
)
