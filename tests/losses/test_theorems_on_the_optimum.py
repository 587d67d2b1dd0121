"""The optimum that DPO, PPO and the regularised reward share."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxalign import (
    PairLogps,
    dpo_loss,
    exact_kl,
    gae,
    implicit_rewards,
    k1,
    log_softmax,
    ppo_policy_loss,
    shaped_rewards,
)

BETA = 0.5
RESPONSES = 6


@pytest.fixture
def bandit(x64):
    """One prompt, six responses: reference logits, rewards, and pi_ref exp(r / beta) / Z."""
    rng = np.random.default_rng(0)
    reference, rewards = rng.normal(size=(2, RESPONSES))
    return jnp.asarray(reference), jnp.asarray(rewards), log_softmax(reference + rewards / BETA)


def expected_dpo_loss(logits, reference, rewards):
    """Both orders of all pairs, labelled by Bradley-Terry people who hold these rewards."""
    pairs = np.array(list(itertools.permutations(range(RESPONSES), 2)))

    def sides(logits):
        logps = log_softmax(logits)
        return PairLogps(chosen=logps[pairs[:, 0]], rejected=logps[pairs[:, 1]])

    preferred = jax.nn.sigmoid(rewards[pairs[:, 0]] - rewards[pairs[:, 1]])
    return jnp.sum(preferred * dpo_loss(sides(logits), sides(reference), beta=BETA))


def expected_ppo_loss(logits, behaviour, reference, rewards):
    """All responses, weighted by the behaviour policy's probabilities; KL (k1) in the reward."""
    behaviour_logps = jax.lax.stop_gradient(log_softmax(behaviour))
    reference_logps = log_softmax(reference)
    one_token = jnp.ones((RESPONSES, 1), bool)
    kl = k1(behaviour_logps, reference_logps)[:, None]
    shaped = shaped_rewards(rewards, kl, one_token, kl_coef=BETA)
    value = jnp.sum(jnp.exp(behaviour_logps) * shaped[:, 0])
    values = jnp.full_like(shaped, value)
    advantages, _ = gae(shaped, values, one_token, gamma=1.0, gae_lambda=0.95)
    logps = log_softmax(logits)
    losses = ppo_policy_loss(logps, behaviour_logps, advantages[:, 0], clip_range=0.2)
    return jnp.sum(jnp.exp(behaviour_logps) * losses)


def regularised_reward(logits, reference, rewards):
    """J(pi) = E_pi[r] - beta KL(pi, pi_ref): what both halves of the library are for."""
    return jnp.sum(jnp.exp(log_softmax(logits)) * rewards) - BETA * exact_kl(logits, reference)


dpo_gradient = jax.jit(jax.grad(expected_dpo_loss))


ppo_gradient = jax.jit(jax.grad(expected_ppo_loss))


reward_gradient = jax.jit(jax.grad(regularised_reward))


def test_both_halves_have_the_same_optimum(bandit):
    """At pi_ref exp(r / beta) / Z the gradients of DPO, PPO and J vanish; elsewhere none does."""
    reference, rewards, optimum = bandit
    for logits, is_optimum in ((optimum, True), (reference, False), (rewards, False)):
        grads = (
            dpo_gradient(logits, reference, rewards),
            ppo_gradient(logits, logits, reference, rewards),
            reward_gradient(logits, reference, rewards),
        )
        for grad in grads:
            assert (float(jnp.abs(grad).max()) < 1e-12) == is_optimum


def test_on_policy_ppo_gradient_is_that_of_the_regularised_reward(bandit):
    reference, rewards, _ = bandit
    logits = jnp.asarray(np.random.default_rng(1).normal(size=RESPONSES))
    np.testing.assert_allclose(
        ppo_gradient(logits, logits, reference, rewards),
        -reward_gradient(logits, reference, rewards),
        atol=1e-12,
    )


def test_descent_on_either_loss_arrives_at_the_optimum(bandit):
    reference, rewards, optimum = bandit

    def descend(gradient, rate):
        def step(logits, _):
            return logits - rate * gradient(logits), None

        return log_softmax(jax.lax.scan(step, reference, length=3000)[0])

    def dpo(logits):
        return dpo_gradient(logits, reference, rewards)

    def ppo(logits):
        return ppo_gradient(logits, logits, reference, rewards)

    assert float(jnp.abs(log_softmax(reference) - optimum).max()) > 0.5
    np.testing.assert_allclose(jax.jit(lambda: descend(dpo, 1.0))(), optimum, atol=1e-6)
    np.testing.assert_allclose(jax.jit(lambda: descend(ppo, 4.0))(), optimum, atol=1e-6)


def test_implicit_rewards_of_the_optimum_are_the_rewards(bandit):
    """Up to a constant of the prompt, beta log Z."""
    reference, rewards, optimum = bandit
    logps = PairLogps(chosen=optimum, rejected=optimum)
    base = log_softmax(reference)
    implied = implicit_rewards(logps, PairLogps(chosen=base, rejected=base), beta=BETA).chosen
    np.testing.assert_allclose(implied - implied[0], rewards - rewards[0], atol=1e-12)
