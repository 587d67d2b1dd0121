"""Advantages, returns, rewards per step."""

import numpy as np
from tests.specimens.specimen import Specimen, by_rows

import jaxalign
from tests.oracles import gae as gae_oracle
from tests.oracles import group_advantages as groups
from tests.oracles import returns, statistics
from tests.oracles import rewards as rewards_oracle
from tests.specimens import draws

SHAPE = (draws.ROWS, draws.TOKENS)


def episodes(rng, scale=1.0):
    """Rewards and values with ends of both kinds, also on masked steps, and both at once."""
    rewards, values, final_values = scale * rng.normal(size=(3, *SHAPE))
    terminations, truncations = rng.random((2, *SHAPE)) < 0.25
    terminations[0], truncations[0] = False, False
    return {
        "rewards": rewards,
        "values": values,
        "mask": draws.mask(rng),
        "terminations": terminations,
        "truncations": truncations,
        "final_values": final_values,
        "bootstrap_values": scale * rng.normal(size=draws.ROWS),
    }


def open_ended(rng):
    """No flags: what is None ends nowhere and is worth 0."""
    return {name: x for name, x in episodes(rng).items() if name in ("rewards", "values", "mask")}


def with_ends(oracle):
    """An oracle that takes the four ends as a tuple."""

    def complete(*arrays, terminations, truncations, final_values, bootstrap_values, **settings):
        ends = (terminations, truncations, final_values, bootstrap_values)
        return oracle(*arrays, ends, **settings)

    return complete


def without_values(rng):
    return {name: x for name, x in episodes(rng).items() if name != "values"}


def off_policy(rng, scale=1.0):
    return {"log_ratios": scale * rng.normal(size=SHAPE)} | episodes(rng)


def vtrace(*arrays, gamma, trace_lambda=1.0, rho_clip=1.0, c_clip=1.0):
    """The oracle with the defaults of the paper."""
    return returns.vtrace(*arrays, gamma, trace_lambda, rho_clip, c_clip)


def scores(rng):
    """Groups: of ties, empty, of one, of several."""
    found, mask = rng.normal(2.0, 3.0, SHAPE), draws.mask(rng)
    found[0] = [9.0, 9.0, 1.0, 9.0, 2.0]
    return {"scores": found, "mask": mask}


def distinct(rng):
    return {"scores": rng.normal(2.0, 3.0, SHAPE), "mask": draws.mask(rng)}


def big_scores(rng):
    return {"scores": 1e4 * rng.normal(size=SHAPE), "mask": draws.mask(rng)}


def with_lengths(rng):
    given = distinct(rng)
    lengths = rng.integers(0, 9, SHAPE)
    lengths[3] = 0
    return {"scores": given["scores"], "lengths": lengths, "mask": given["mask"]}


def several(rng):
    """Three reward functions that are sometimes silent, for four prompts."""
    found = rng.normal(size=(3, *SHAPE)) * np.array([1, 100, 0.01])[:, None, None]
    found[rng.random(found.shape) < 0.2] = np.nan
    found[:, 1, 2] = np.nan
    return {"scores": found, "weights": np.array([1.0, 0.5, 2.0])}


def tokens(rng):
    given = {"scores": rng.normal(size=draws.ROWS), "tokens": rng.integers(0, 3, SHAPE)}
    given["tokens"][0] = [1, 1, 0, 1, 0]
    return given | {"mask": draws.mask(rng)}


def charged(rng, scale=1.0):
    """KL charges of both signs."""
    given = {"scores": rng.normal(size=draws.ROWS), "kl": scale * rng.normal(size=SHAPE)}
    return given | {"mask": draws.mask(rng)}


def batch_mean_so_far(baseline, scores, mask, *, decay):
    kept = statistics.masked_values(scores, mask)
    mean = statistics.masked_mean(scores, mask)
    return decay * baseline + (1 - decay) * mean if kept else baseline


def whitened_returns(rewards, mask, *, gamma):
    nowhere, zeros = np.zeros(np.shape(mask), bool), np.zeros(np.shape(mask))
    to_come = returns.discounted_returns(
        rewards, mask, (nowhere, nowhere, zeros, zeros[:, 0]), gamma
    )
    return statistics.whiten(to_come, mask, True)


EPISODES = {
    "draw": episodes,
    "extremes": lambda rng: episodes(rng, 1e4),
    "trained": ("rewards", "values"),
    "masked": ("rewards", "values", "final_values"),
    "settings": ({"gamma": 0.9, "gae_lambda": 0.7}, {"gamma": 1.0, "gae_lambda": 1.0}),
}
GROUPS = {"draw": distinct, "extremes": big_scores, "trained": ("scores",), "masked": ("scores",)}
TIED = GROUPS | {"draw": scores}

SPECIMENS = (
    Specimen(function=jaxalign.gae, oracle=gae_oracle.gae, **EPISODES),
    Specimen(function=jaxalign.gae_associative, oracle=gae_oracle.gae, **EPISODES),
    Specimen(
        function=jaxalign.discounted_returns,
        oracle=with_ends(returns.discounted_returns),
        **EPISODES
        | {
            "draw": without_values,
            "extremes": None,
            "trained": ("rewards",),
            "masked": ("rewards", "final_values"),
            "settings": ({"gamma": 0.9}, {"gamma": 1.0}),
        },
    ),
    Specimen(
        function=jaxalign.lambda_returns,
        oracle=with_ends(returns.lambda_returns),
        **EPISODES
        | {
            "settings": (
                {"gamma": 0.9, "trace_lambda": 0.7},
                {"gamma": 0.8, "trace_lambda": 0.0},
            )
        },
    ),
    Specimen(
        function=jaxalign.n_step_returns,
        oracle=with_ends(lambda *x, gamma, steps: returns.n_step_returns(*x, gamma, steps)),
        **EPISODES | {"settings": tuple({"gamma": 0.9, "steps": n} for n in (2, 1, 9))},
        invalid=(({"gamma": 0.9, "steps": 0}, "steps must be at least 1"),),
    ),
    Specimen(
        function=jaxalign.vtrace,
        draw=off_policy,
        oracle=with_ends(vtrace),
        settings=(
            {"gamma": 0.9, "trace_lambda": 0.8, "rho_clip": 1.2, "c_clip": 0.9},
            {"gamma": 0.9},
        ),
        frozen=("log_ratios", "rewards", "values"),
        masked=("log_ratios", "rewards", "values", "final_values"),
        order=0,
    ),
    Specimen(
        function=jaxalign.shaped_rewards,
        draw=charged,
        extremes=lambda rng: charged(rng, 1e4),
        oracle=gae_oracle.shaped_rewards,
        settings=({"kl_coef": 0.3},),
        trained=("scores", "kl"),
        masked=("kl",),
    ),
    Specimen(
        function=jaxalign.missing_eos_penalty,
        draw=tokens,
        oracle=rewards_oracle.missing_eos_penalty,
        settings=({"eos_id": 2, "penalty": 0.7},),
        trained=("scores",),
    ),
    Specimen(
        function=jaxalign.overlong_penalties,
        draw=lambda rng: {"lengths": rng.permutation(np.array([3, 9, 10, 14]))},
        oracle=by_rows(rewards_oracle.overlong_penalty),
        settings=({"longest": 12, "cache": 4}, {"longest": 10, "cache": 8}),
        invalid=(({"longest": 3, "cache": 4}, "cache must be in 1 ... 3"),),
        order=0,
    ),
    Specimen(function=jaxalign.centred_advantages, oracle=groups.centred_advantages, **TIED),
    Specimen(function=jaxalign.grpo_advantages, oracle=groups.grpo_advantages, **TIED),
    Specimen(
        function=jaxalign.leave_one_out_advantages,
        oracle=groups.leave_one_out_advantages,
        **TIED,
    ),
    Specimen(
        function=jaxalign.batch_scaled_advantages,
        oracle=groups.batch_scaled_advantages,
        spread="pooled",
        **TIED,
    ),
    Specimen(
        function=jaxalign.best_of_group_advantages,
        oracle=groups.best_of_group_advantages,
        **GROUPS,
    ),
    Specimen(
        function=jaxalign.length_weighted_advantages,
        oracle=groups.length_weighted_advantages,
        **GROUPS | {"draw": with_lengths, "extremes": None},
    ),
    Specimen(
        function=jaxalign.greedy_baseline_advantages,
        draw=lambda rng: {
            "scores": rng.normal(size=SHAPE),
            "greedy_scores": rng.normal(size=draws.ROWS),
            "mask": draws.mask(rng),
        },
        oracle=lambda scores, greedy, mask: np.where(
            mask, np.asarray(scores) - np.asarray(greedy)[:, None], 0
        ),
        trained=("scores", "greedy_scores"),
        masked=("scores",),
    ),
    Specimen(
        function=jaxalign.weighted_scores,
        draw=several,
        oracle=groups.weighted_scores,
        trained=("weights",),
        shared=("scores", "weights"),
    ),
    Specimen(
        function=jaxalign.decoupled_advantages,
        draw=several,
        oracle=groups.decoupled_advantages,
        trained=("weights",),
        shared=("scores", "weights"),
    ),
    Specimen(
        function=jaxalign.running_baseline,
        draw=lambda rng: {"baseline": np.array(1.5)} | distinct(rng),
        extremes=lambda rng: {"baseline": np.array(-1e4)} | big_scores(rng),
        oracle=batch_mean_so_far,
        settings=({"decay": 0.75}, {"decay": 0.0}),
        trained=("baseline", "scores"),
        masked=("scores",),
        shared=("baseline",),
        spread="pooled",
        invalid=tuple(({"decay": decay}, "decay must be in [0, 1)") for decay in (-0.1, 1.0)),
    ),
    Specimen(
        function=jaxalign.reinforce_plus_plus_advantages,
        draw=lambda rng: {"rewards": rng.normal(size=SHAPE), "mask": draws.mask(rng)},
        extremes=lambda rng: {"rewards": 1e4 * rng.normal(size=SHAPE), "mask": draws.mask(rng)},
        oracle=whitened_returns,
        settings=({"gamma": 0.9}, {"gamma": 1.0}),
        trained=("rewards",),
        masked=("rewards",),
        spread="pooled",
    ),
)
