"""Examples of what `jaxalign/advantages/group.py` offers."""

import numpy as np

import jaxalign
from tests.cases import draws
from tests.cases.case import Case
from tests.cases.episodes import big_scores, distinct, scores
from tests.oracles import group_advantages as groups


def with_lengths(rng):
    given = distinct(rng)
    lengths = rng.integers(0, 9, draws.SHAPE)
    lengths[3] = 0
    return {"scores": given["scores"], "lengths": lengths, "mask": given["mask"]}


def several(rng):
    """Three reward functions that are sometimes silent, for four prompts."""
    found = rng.normal(size=(3, *draws.SHAPE)) * np.array([1, 100, 0.01])[:, None, None]
    found[rng.random(found.shape) < 0.2] = np.nan
    found[:, 1, 2] = np.nan
    return {"scores": found, "weights": np.array([1.0, 0.5, 2.0])}


GROUPS = {"draw": distinct, "extremes": big_scores, "trained": ("scores",), "masked": ("scores",)}

TIED = GROUPS | {"draw": scores}

CASES = (
    Case(
        function=jaxalign.centred_advantages,
        fixed_rank=True,
        oracle=groups.centred_advantages,
        **TIED,
    ),
    Case(function=jaxalign.grpo_advantages, fixed_rank=True, oracle=groups.grpo_advantages, **TIED),
    Case(
        function=jaxalign.leave_one_out_advantages,
        fixed_rank=True,
        oracle=groups.leave_one_out_advantages,
        **TIED,
    ),
    Case(
        function=jaxalign.batch_scaled_advantages,
        fixed_rank=True,
        oracle=groups.batch_scaled_advantages,
        spread="pooled",
        **TIED,
    ),
    Case(
        function=jaxalign.best_of_group_advantages,
        fixed_rank=True,
        oracle=groups.best_of_group_advantages,
        **GROUPS,
    ),
    Case(
        function=jaxalign.length_weighted_advantages,
        fixed_rank=True,
        oracle=groups.length_weighted_advantages,
        **GROUPS | {"draw": with_lengths, "extremes": None},
    ),
    Case(
        function=jaxalign.weighted_scores,
        fixed_rank=True,
        draw=several,
        oracle=groups.weighted_scores,
        trained=("weights",),
        shared=("scores", "weights"),
    ),
    Case(
        function=jaxalign.decoupled_advantages,
        fixed_rank=True,
        draw=several,
        oracle=groups.decoupled_advantages,
        trained=("weights",),
        shared=("scores", "weights"),
    ),
)
