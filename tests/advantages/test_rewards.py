"""Rewards per step: the score at the last token, the KL, penalties."""

import jax.numpy as jnp
import numpy as np

from jaxalign import (
    missing_eos_penalty,
    overlong_penalties,
    shaped_rewards,
)
from tests.cases.advantages.rewards import CASES
from tests.checks.of_cases import checks_of
from tests.oracles import gae as oracle

TestCases = checks_of(CASES)


def test_overlong_penalties_of_unsigned_lengths():
    """Too long by two of four tokens: -1/2, not what unsigned numbers below 0 wrap around to."""
    assert overlong_penalties(jnp.asarray([8], jnp.uint32), longest=10, cache=4).tolist() == [-0.5]


def test_overlong_penalties_from_the_last_token_and_from_the_first():
    lengths = jnp.asarray([0, 1, 3, 4])
    assert overlong_penalties(lengths, longest=4, cache=1).tolist() == [0, 0, 0, -1]
    assert overlong_penalties(lengths, longest=4, cache=4).tolist() == [0, -0.25, -0.75, -1]


def test_shaped_rewards_by_hand():
    """The score stands on the last real token, wherever the padding is; an empty row has 0."""
    mask = jnp.array([[0, 1, 1, 0], [1, 0, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]], bool)
    scores = jnp.array([10.0, 20.0, 30.0, 40.0])
    kl = jnp.array([[1.0, 2.0, 3.0, 4.0]] * 4)
    rewards = shaped_rewards(scores, kl, mask, kl_coef=0.5)
    assert rewards.tolist() == [
        [0.0, -1.0, 8.5, 0.0],
        [-0.5, 0.0, -1.5, 18.0],
        [29.5, 0.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.0],
    ]


def test_shaped_rewards_against_the_paper(x64):
    rng = np.random.default_rng(7)
    scores, kl, mask = rng.normal(size=5), rng.normal(size=(5, 9)), rng.random((5, 9)) < 0.5
    ours = shaped_rewards(scores, kl, mask, kl_coef=0.3)
    np.testing.assert_allclose(ours, oracle.shaped_rewards(scores, kl, mask, 0.3), atol=1e-12)


def test_shaped_rewards_keep_fractions_of_integer_inputs():
    mask = jnp.array([[True, True]])
    rewards = shaped_rewards(jnp.array([1]), jnp.array([[1, 1]]), mask, kl_coef=0.25)
    assert rewards.tolist() == [[-0.25, 0.75]]


def test_a_score_without_a_response_goes_nowhere():
    """A judge may return NaN for an empty response; the row has no step to put it on."""
    mask = jnp.array([[False, False], [True, False]])
    rewards = shaped_rewards(jnp.array([jnp.nan, 2.0]), jnp.ones((2, 2)), mask, kl_coef=0.5)
    assert rewards.tolist() == [[0, 0], [1.5, 0]]


def test_missing_eos_penalty_by_hand():
    """Only an EOS in the response counts: not in the prompt (row 1), not in the padding (row 2)."""
    tokens = jnp.array([[5, 6, 2], [2, 5, 6], [5, 2, 2], [5, 5, 5]])
    mask = jnp.array([[0, 1, 1], [0, 1, 1], [1, 0, 0], [0, 0, 0]], bool)
    scores = missing_eos_penalty(jnp.ones(4), tokens, mask, eos_id=2, penalty=3.0)
    assert scores.tolist() == [1, -2, -2, 1]
    custom = missing_eos_penalty(jnp.ones(4), tokens, mask, eos_id=6, penalty=3.0)
    assert custom.tolist() == [1, 1, -2, 1]
