"""GSPO: the ratio of a whole response."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign import (
    ppo_policy_loss,
    rloo_loss,
    sequence_log_ratios,
    token_log_ratios,
)
from tests.cases.losses.gspo import CASES
from tests.checks.of_cases import checks_of
from tests.decisions import ADVANTAGES, CLOSE, B, T, draw

TestCases = checks_of(CASES)


def test_both_forms_of_gspo_agree(x64):
    """The token form has value and gradient of the sequence form if a response has one advantage
    and the mean over its tokens is taken (Zheng et al. 2025, Sec. 4.3).
    """
    logps, behaviour, mask = draw(3)
    each = np.broadcast_to(ADVANTAGES[:, None], (B, T))
    zero, lengths = np.zeros((B, T)), np.maximum(mask.sum(axis=1, keepdims=True), 1)

    def loss(form):
        def mean(x):
            losses = ppo_policy_loss(form(x, behaviour, mask), zero, each, clip_range=0.2)
            return jnp.sum(losses * mask / lengths)

        return jax.value_and_grad(mean)(jnp.asarray(logps))

    one, other = loss(sequence_log_ratios), loss(token_log_ratios)
    np.testing.assert_allclose(one[0], other[0], **CLOSE)
    np.testing.assert_allclose(one[1], other[1], **CLOSE)
    assert np.any(one[1])


def test_the_token_form_moves_each_token_by_itself(x64):
    """Its value is the mean log-ratio, its gradient that of the token alone."""
    logps, behaviour, mask = draw(4)
    found, back = jax.vjp(lambda x: token_log_ratios(x, behaviour, mask), jnp.asarray(logps))
    expected = [(logps - behaviour)[i][mask[i]].mean() if mask[i].any() else 0 for i in range(B)]
    np.testing.assert_allclose(found, np.broadcast_to(np.array(expected)[:, None], (B, T)), **CLOSE)
    cotangent = np.arange(B * T, dtype=float).reshape(B, T)
    np.testing.assert_allclose(back(jnp.asarray(cotangent))[0], cotangent, **CLOSE)


def test_length_changes_no_ratio_of_gspo():
    """A response said twice has the same mean log-ratio; RLOO's ratio is squared."""
    logps, behaviour, _ = draw(5)
    mask, twice = np.ones((B, T), bool), np.ones((B, 2 * T), bool)
    double = [np.tile(x, 2) for x in (logps, behaviour)]
    ones, clip = np.ones(B), {"clip_range": 1e6}
    np.testing.assert_allclose(
        sequence_log_ratios(*double, twice)[:, 0],
        sequence_log_ratios(logps, behaviour, mask)[:, 0],
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        -rloo_loss(*double, twice, ones, **clip),
        rloo_loss(logps, behaviour, mask, ones, **clip) ** 2,
        rtol=1e-5,
    )
