"""Losses on the policy's own decisions."""

import numpy as np

import jaxalign
from tests.oracles import ppo as oracle
from tests.specimens import draws
from tests.specimens.specimen import Specimen, by_entries


def decisions(rng):
    return {
        "logps": draws.tokens(rng),
        "behaviour_logps": draws.tokens(rng),
        "advantages": rng.normal(size=(draws.ROWS, draws.TOKENS)),
    }


def extreme_decisions(rng):
    shape = (draws.ROWS, draws.TOKENS)
    logps = np.broadcast_to([-1e4, -1.0, 0.0, -30.0, -2.0], shape)
    behaviour = np.broadcast_to([-1.0, -30.0, 0.0, -1.0, -2.0], shape)
    return {"logps": logps, "behaviour_logps": behaviour, "advantages": rng.normal(size=shape)}


SPECIMENS = (
    Specimen(
        function=jaxalign.ppo_policy_loss,
        draw=decisions,
        extremes=extreme_decisions,
        oracle=by_entries(
            lambda logp, behaviour, advantage, *, clip_range, dual_clip=None: oracle.policy_loss(
                logp, behaviour, advantage, *np.broadcast_to(clip_range, 2), dual_clip
            )
        ),
        settings=({"clip_range": 0.2}, {"clip_range": (0.2, 0.3), "dual_clip": 2.0}),
        trained=("logps",),
        frozen=("behaviour_logps", "advantages"),
        invalid=(
            ({"clip_range": 0.0}, "clip_range must be above 0"),
            ({"clip_range": 0.2, "dual_clip": 1.1}, "dual_clip must be above 1"),
        ),
    ),
)
