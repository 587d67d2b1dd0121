"""f-DPO: divergences other than the reverse KL."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxalign as ja
from jaxalign import PairLogps
from tests.cases.losses.f_dpo import CASES
from tests.checks.of_cases import checks_of
from tests.pairs import BETA, HALF, LOG2, POLICY, REFERENCE, E, pair

TestCases = checks_of(CASES)


INVERSE = {  # t for which f'(t) = s, and the bound that s stays below
    "reverse_kl": (ja.reverse_kl_score, np.exp, 30.0),
    "forward_kl": (ja.forward_kl_score, lambda s: 1 / (1 - s), 1.0),
    "jensen_shannon": (ja.jensen_shannon_score, lambda s: np.exp(s) / (2 - np.exp(s)), LOG2),
    "alpha": (HALF, lambda s: (1 - s / 2) ** -2, 2.0),
}


@pytest.mark.parametrize("name", INVERSE)
def test_f_dpo_finds_the_optimum_of_its_divergence(x64, name):
    """pi = pi_ref (f')^-1((r - c) / beta), c such that pi sums to 1, is stationary."""
    score, inverse, bound = INVERSE[name]
    rewards, base = np.array([0.5, -0.4, 0.1]), np.array([0.2, 0.5, 0.3])
    low, high = rewards.max() - BETA * bound + 1e-12, 10.0
    for _ in range(200):
        middle = (low + high) / 2
        total = base @ inverse((rewards - middle) / BETA)
        low, high = (middle, high) if total > 1 else (low, middle)
    policy = base * inverse((rewards - low) / BETA)
    assert policy.sum() == pytest.approx(1, abs=1e-9) and np.abs(policy - base).max() > 0.05
    i, j = np.array([(i, j) for i in range(3) for j in range(3) if i != j]).T
    weights = jax.nn.sigmoid(rewards[i] - rewards[j])
    reference = pair(np.log(base[i]), np.log(base[j]))

    def loss(logits):
        logps = jax.nn.log_softmax(logits)
        pairs = PairLogps(chosen=logps[i], rejected=logps[j])
        return weights @ ja.f_dpo_loss(pairs, reference, beta=BETA, score=score)

    slopes = jax.jit(jax.grad(loss))
    np.testing.assert_allclose(slopes(jnp.log(policy)), 0, atol=1e-9)
    assert np.abs(slopes(jnp.log(base))).max() > 0.01


def test_divergences_meet_in_the_alpha_family(x64):
    log_t = np.linspace(-2.0, 2.0, 9)
    near = functools.partial(ja.alpha_score, log_t)
    np.testing.assert_allclose(near(alpha=1e-9), ja.reverse_kl_score(log_t), atol=1e-7)
    np.testing.assert_array_equal(near(alpha=1.0), ja.forward_kl_score(log_t))
    # Jensen-Shannon: log(2 t / (1 + t)) of t = 3 is log 1.5
    np.testing.assert_allclose(ja.jensen_shannon_score(np.log([3.0])), math.log(1.5), rtol=1e-12)
    dpo = ja.dpo_loss(POLICY, REFERENCE, beta=BETA, label_smoothing=E)
    f_dpo = functools.partial(ja.f_dpo_loss, POLICY, REFERENCE, beta=BETA, label_smoothing=E)
    np.testing.assert_array_equal(f_dpo(score=ja.reverse_kl_score), dpo)
