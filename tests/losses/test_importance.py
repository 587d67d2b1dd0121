"""Importance weights between two engines, and tokens chosen by entropy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxalign
from jaxalign import (
    on_policy_rows,
    top_entropy_mask,
)
from tests.cases.losses.importance import CASES
from tests.checks.of_cases import checks_of
from tests.decisions import CLOSE, draw

TestCases = checks_of(CASES)


def test_all_tokens_are_among_the_most_uncertain():
    _, behaviour, mask = draw(6)
    np.testing.assert_array_equal(top_entropy_mask(-behaviour, mask, share=1.0), mask)


def test_share_of_the_most_uncertain(x64):
    """A third of nine distinct numbers is the three largest."""
    entropies = np.random.default_rng(7).permutation(9.0 + np.arange(9)).reshape(3, 3)
    kept = top_entropy_mask(entropies, np.ones((3, 3), bool), share=3 / 9)
    assert sorted(entropies[np.asarray(kept)]) == [15, 16, 17]


@pytest.mark.parametrize("cap", [0.5, 2.0])
def test_capped_weights_are_biased_by_what_was_cut(x64, cap):
    """E_sampler[min(r, cap)] = sum of min(p, cap q), exactly; the masked form drops those above."""
    rng = np.random.default_rng(8)
    p, q = (np.asarray(jax.nn.softmax(rng.normal(size=6))) for _ in range(2))
    truncated = jaxalign.truncated_importance_weights(np.log(p), np.log(q), cap=cap)
    masked = jaxalign.masked_importance_weights(np.log(p), np.log(q), cap=cap)
    np.testing.assert_allclose(q @ truncated, np.minimum(p, cap * q).sum(), **CLOSE)
    np.testing.assert_allclose(q @ masked, p[p <= cap * q].sum(), **CLOSE)
    assert 0 < (p <= cap * q).sum() < 6


def test_rows_are_on_policy_by_their_mean_drift():
    """By hand, nats a token 0.9, 1.2 and (0.3 + 1.5) / 2 = 0.9; masked tokens are not looked at."""
    logps = -jnp.asarray([[0.9, jnp.nan], [1.2, jnp.nan], [0.3, 1.5]])
    mask = jnp.asarray([[True, False], [True, False], [True, True]])
    bad = -jnp.ones(3)
    kept = on_policy_rows(logps, jnp.zeros((3, 2)), mask, bad, threshold=1.0)
    assert kept.tolist() == [True, False, True]


def test_rows_are_on_policy_in_float32():
    """By hand, numbers that bfloat16 holds but whose difference it does not: 1 + 2^-9."""
    logp, behaviour = (jnp.asarray([[x]], jnp.bfloat16) for x in (-1.0, 2.0**-9))
    mask, bad = jnp.ones((1, 1), bool), -jnp.ones(1)
    assert on_policy_rows(logp, behaviour, mask, bad, threshold=1.0).tolist() == [False]


def test_quantiles_of_entropies_in_float32():
    """Between two neighbours of bfloat16 there is no number for it to be."""
    entropies = jnp.asarray([[1.0, 1.0 + 2.0**-7]], jnp.bfloat16)
    kept = top_entropy_mask(entropies, jnp.ones((1, 2), bool), share=0.5)
    assert kept.tolist() == [[False, True]]
