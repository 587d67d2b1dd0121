"""Rows on rewards, advantages and returns."""

import numpy as np

from benchmarks.conformance.peers.adapter import Measured, Row
from benchmarks.conformance.peers.data import MASK
from benchmarks.conformance.peers.measuring import TOLERANCE, close, error, short

GROUPS = np.array([[0.0, 1.0, 3.0, 2.0], [1.0, 5.0, 1.0, 2.0]])


def same_shape_of(found, wanted):
    """Largest difference after both are divided by their standard deviations, group by group."""
    found, wanted = (np.asarray(x, np.float64) for x in (found, wanted))
    found, wanted = (x / x.std(1, keepdims=True) for x in (found, wanted))
    return error(found, wanted)


def group_integers(advantages):
    """Whole rewards as integers and as floats."""
    found, wanted = advantages(GROUPS.astype(np.int32)), advantages(GROUPS.astype(np.float32))
    off = max(error(found, wanted), same_shape_of(wanted, GROUPS - GROUPS.mean(1, keepdims=True)))
    return Measured(off <= TOLERANCE, f"error {short(off)}")


def group_scale(advantages):
    """A thousandth of the rewards."""
    small, plain = GROUPS.astype(np.float32) * np.float32(1e-3), GROUPS.astype(np.float32)
    change = np.abs(advantages(small) / advantages(plain) - 1).max()
    return Measured(bool(change <= 1e-3), f"rewards / 1000 change the advantages by {change:.2%}")


def group_equal(advantages):
    """Groups of equal rewards that binary fractions do not hold; three, so that means round."""
    found = advantages(np.array([[0.1] * 3, [0.7] * 3], np.float32))
    worst = float(np.abs(np.asarray(found, np.float64)).max())
    return Measured(worst <= 1e-6, f"largest advantage {short(worst)}")


def group_offset(advantages):
    """Rewards of 4096 and a little: a variance from squares has no right digit."""
    found = np.asarray(advantages((4096 + GROUPS).astype(np.float32)), np.float64)
    wanted = np.asarray(advantages(GROUPS.astype(np.float32)), np.float64)
    off = error(found, wanted)
    return Measured(off <= 0.01, f"error {short(off)} of max(1, advantage)")


def wanted_leave_one_out(rewards):
    count = rewards.shape[1]
    return rewards - (rewards.sum(1, keepdims=True) - rewards) / (count - 1)


def leave_one_out_value(advantages):
    return close(advantages(GROUPS.astype(np.float32)), wanted_leave_one_out(GROUPS))


def leave_one_out_offset(advantages):
    rewards = 4096 + GROUPS
    found = np.asarray(advantages(rewards.astype(np.float32)), np.float64)
    wanted = wanted_leave_one_out(rewards)
    off = float(np.abs(found - wanted).max() / np.abs(wanted).max())
    return Measured(off <= 0.01, f"error {short(off)} of the largest advantage")


SCORES, LENGTHS = np.array([0.7, -1.9, 2.5]), np.array([2, 5, 3])
ENDED = np.array([True, False, True])


WHOLE = np.array([1.0, -2.0, 3.0])


def _token_rewards(token_rewards, scores):
    return np.asarray(token_rewards(scores, LENGTHS, ENDED, 5), np.float64)


def fractional_scores(token_rewards):
    found = _token_rewards(token_rewards, SCORES).sum(1)
    return Measured(
        error(found, SCORES) <= TOLERANCE,
        ", ".join(f"{score:.3g} becomes {x:.3g}" for score, x in zip(SCORES, found, strict=True)),
    )


def score_placement(token_rewards):
    """Somewhere else there is nothing; the middle response was cut off and has no EOS."""
    found = _token_rewards(token_rewards, WHOLE)
    places = [np.flatnonzero(row).tolist() for row in found]
    wanted = [[length - 1] for length in LENGTHS.tolist()]
    return Measured(places == wanted, f"positions {places}, last tokens {wanted}")


def brute_force_returns(rewards, values, gamma, gae_lambda):
    """TD(lambda) targets of one row of real steps, from n-step returns written out."""
    steps = len(rewards)

    def n_step(start, n):
        total = sum(gamma**k * rewards[start + k] for k in range(n))
        end = start + n
        return total + (gamma**n * values[end] if end < steps else 0)

    def target(t):
        left = steps - t
        mixed = sum(gae_lambda ** (n - 1) * n_step(t, n) for n in range(1, left))
        return (1 - gae_lambda) * mixed + gae_lambda ** (left - 1) * n_step(t, left)

    return np.array([target(t) for t in range(steps)])


def _rows(mask, garbage: float):
    rng = np.random.default_rng(5)
    rewards, values = rng.normal(size=(2, *mask.shape))
    return np.where(mask, rewards, 0.0), np.where(mask, values, garbage)


def _returns_error(returns, mask, garbage=0.0, decays=(0.9, 0.8)):
    rewards, values = _rows(mask, garbage)
    found = np.asarray(
        returns(rewards, values, mask, gamma=decays[0], gae_lambda=decays[1]), np.float64
    )
    off = 0.0
    for b, real in enumerate(mask):
        wanted = brute_force_returns(rewards[b][real], values[b][real], *decays)
        off = max(off, error(found[b][real], wanted))
    return Measured(off <= TOLERANCE, f"error {short(off)}")


def gae_value(returns):
    worst = [_returns_error(returns, np.ones((2, 5), bool), 0.0, d) for d in ((0.9, 0.8), (1, 1))]
    return max(worst, key=lambda measured: float(measured.number.split()[1]))


def gae_padding(returns):
    return _returns_error(returns, MASK, garbage=7.0)


def gae_between(returns):
    """Steps that are no decisions, observations say, in the middle of rows."""
    mask = np.array([[1, 1, 0, 0, 1, 1], [1, 0, 1, 1, 0, 1]], bool)
    return _returns_error(returns, mask, garbage=7.0)


def _whitened(whiten, x, mask):
    found = np.asarray(whiten(x, mask), np.float64)[mask]
    return found


def whiten_padding(whiten):
    """Mean 0, variance 1 with either divisor, whatever stands on padding."""
    x = np.random.default_rng(6).normal(3, 2, MASK.shape)
    found = _whitened(whiten, np.where(MASK, x, 99.0), MASK)
    mean, variances = abs(found.mean()), [abs(found.var(ddof=d) - 1) for d in (0, 1)]
    off = max(mean, min(variances))
    return Measured(bool(off <= 1e-4), f"mean or variance off by {short(off)}")


def whiten_one(whiten):
    mask = np.zeros((2, 3), bool)
    mask[0, 1] = True
    found = _whitened(whiten, np.full((2, 3), 3.0), mask)
    return Measured(bool(np.isfinite(found).all()), f"becomes {found[0]:.3g}")


STEPS, STEP_VALUES, FINAL, GAMMA = np.array([1.0, 2.0, 0.5]), np.array([0.3, 0.1, 0.4]), 10.0, 0.9


def _episode_target(found, tail):
    wanted = (GAMMA ** np.arange(3) * STEPS).sum() + tail
    return close(float(found), wanted)


def time_limit(target):
    found = target(STEPS, STEP_VALUES, FINAL, GAMMA, True)
    return _episode_target(found, GAMMA**3 * FINAL)


def termination(target):
    return _episode_target(target(STEPS, STEP_VALUES, FINAL, GAMMA, False), 0.0)


def vtrace_on_policy(targets):
    rewards, values = np.array([1.0, -0.5, 2.0]), np.array([0.3, 0.2, -0.4, 1.5])
    wanted = [
        sum(0.9 ** (k - t) * rewards[k] for k in range(t, 3)) + 0.9 ** (3 - t) * values[3]
        for t in range(3)
    ]
    return close(targets(rewards, values, 0.9), wanted)


GAE = "Schulman et al. 2016, https://arxiv.org/abs/1506.02438, Eq. 16"
GRPO = "Shao et al. 2024, https://arxiv.org/abs/2402.03300, Sec. 4.1.2"
TIME = "Pardo et al. 2018, https://arxiv.org/abs/1712.00378"

ROWS = (
    Row(
        "group_integers",
        "Group-relative advantages of whole rewards are the same for integers and floats.",
        (GRPO,),
        "group_advantages",
        group_integers,
    ),
    Row(
        "group_scale",
        "Advantages divided by the group's standard deviation do not change with the unit of the "
        "rewards (rewards of about 1 divided by 1000, up to 0.1%).",
        (GRPO,),
        "group_advantages",
        group_scale,
    ),
    Row(
        "group_equal",
        "A group of equal rewards has advantages of 0, up to 1e-6.",
        (GRPO,),
        "group_advantages",
        group_equal,
    ),
    Row(
        "group_offset",
        "Group-relative advantages survive a large common part of the rewards (float32).",
        ("https://github.com/NVIDIA-NeMo/RL/pull/4158",),
        "group_advantages",
        group_offset,
    ),
    Row(
        "leave_one_out_value",
        "A leave-one-out advantage is the reward less the mean of the others'.",
        ("Ahmadian et al. 2024, https://arxiv.org/abs/2402.14740, RLOO",),
        "leave_one_out",
        leave_one_out_value,
    ),
    Row(
        "leave_one_out_offset",
        "Leave-one-out advantages survive a large common part of the rewards (float32, 1%).",
        ("https://github.com/NVIDIA-NeMo/RL/pull/4158",),
        "leave_one_out",
        leave_one_out_offset,
    ),
    Row(
        "fractional_scores",
        "A fractional score arrives in the rewards per token unchanged.",
        ("Ziegler et al. 2019, https://arxiv.org/abs/1909.08593, Eq. 2",),
        "token_rewards",
        fractional_scores,
    ),
    Row(
        "score_placement",
        "The score is the reward of the last token of the response, also of one without EOS.",
        ("https://github.com/huggingface/trl/issues/3750",),
        "token_rewards",
        score_placement,
    ),
    Row(
        "gae_value",
        "GAE's value targets are TD(lambda) targets, mixed from n-step returns.",
        (GAE,),
        "returns",
        gae_value,
    ),
    Row(
        "gae_padding",
        "GAE's value targets do not depend on values that stand on padding.",
        (GAE, "https://github.com/huggingface/trl/issues/3750"),
        "returns",
        gae_padding,
    ),
    Row(
        "gae_between",
        "GAE skips masked steps between decisions.",
        ("https://github.com/verl-project/verl/pull/2337",),
        "returns",
        gae_between,
    ),
    Row(
        "whiten_padding",
        "Whitened advantages have mean 0 and variance 1 over real tokens, whatever is on padding.",
        ("https://github.com/huggingface/trl/issues/469",),
        "whiten",
        whiten_padding,
    ),
    Row(
        "whiten_one",
        "Whitening one single token gives a finite number.",
        ("https://github.com/huggingface/trl/issues/5662",),
        "whiten",
        whiten_one,
    ),
    Row(
        "time_limit",
        "An episode that is cut by a time limit bootstraps from the value of its last observation.",
        (TIME, "https://github.com/vwxyzjn/cleanrl/issues/198"),
        "time_limit",
        time_limit,
    ),
    Row(
        "termination",
        "An episode that ends by itself does not.",
        (TIME,),
        "time_limit",
        termination,
    ),
    Row(
        "vtrace_on_policy",
        "On policy and with lambda 1, V-trace's targets are discounted returns plus bootstrap.",
        ("Espeholt et al. 2018, https://arxiv.org/abs/1802.01561, Sec. 4.1",),
        "vtrace",
        vtrace_on_policy,
    ),
)
