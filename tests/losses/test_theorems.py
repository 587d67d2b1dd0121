"""What must be true of the mathematics, whoever wrote the code."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxalign import (
    PairLogps,
    action_logps,
    adapted_coef,
    bradley_terry_loss,
    centering_penalty,
    dpo_loss,
    exact_kl,
    gae,
    implicit_rewards,
    k1,
    k2,
    k3,
    log_softmax,
    ppo_policy_loss,
    robust_dpo_loss,
    shaped_rewards,
    whiten,
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
kl_gradient = jax.jit(jax.grad(exact_kl))


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


def test_robust_dpo_is_unbiased_under_label_noise(x64):
    """Flip each label with probability e: the mean of the robust loss is the clean loss."""
    rng = np.random.default_rng(2)
    policy, reference = (PairLogps(chosen=c, rejected=r) for c, r in rng.normal(size=(2, 2, 20)))
    e = 0.3

    def flip(pair):
        return PairLogps(chosen=pair.rejected, rejected=pair.chosen)

    noisy = (1 - e) * robust_dpo_loss(policy, reference, beta=1.0, label_smoothing=e)
    noisy += e * robust_dpo_loss(flip(policy), flip(reference), beta=1.0, label_smoothing=e)
    np.testing.assert_allclose(noisy, dpo_loss(policy, reference, beta=1.0), atol=1e-12)


def test_bradley_terry_ignores_a_constant_and_centering_does_not():
    chosen, rejected = jnp.array([2.0, 1.0]), jnp.array([1.0, -1.0])
    loss, shifted = (bradley_terry_loss((chosen + c) - (rejected + c)) for c in (0.0, 4.0))
    np.testing.assert_array_equal(loss, shifted)

    def penalty(c):
        return centering_penalty(chosen + c, rejected + c).sum()

    # (3 + 2 c)^2 + (2 c)^2 is least at c = -3/4
    assert float(jax.grad(penalty)(-0.75)) == 0


def test_bradley_terry_fits_the_rewards(x64):
    """Scores equal to the true rewards are a stationary point of the expected loss."""
    rewards = jnp.array([0.3, -1.2, 2.0])

    def loss(scores):
        gaps, truth = (x[:, None] - x[None, :] for x in (scores, rewards))
        return jnp.sum(jax.nn.sigmoid(truth) * bradley_terry_loss(gaps))

    np.testing.assert_allclose(jax.grad(loss)(rewards), 0, atol=1e-15)
    assert jnp.abs(jax.grad(loss)(rewards * 2)).max() > 0.01


class TestEstimatorsOfTheKL:
    """Exact expectations under the policy, and exact expected gradients, over six outcomes."""

    @pytest.fixture
    def policies(self, x64):
        rng = np.random.default_rng(3)
        return tuple(jnp.asarray(rng.normal(size=(2, RESPONSES))))

    def expectation(self, estimator, logits, reference):
        """E_pi[estimator], sampling held fixed: what a loss on samples from pi estimates."""
        logps = log_softmax(logits)
        weights = jax.lax.stop_gradient(jnp.exp(logps))
        return jnp.sum(weights * estimator(logps, log_softmax(reference)))

    def test_values(self, policies):
        """k1 and k3 are unbiased, k2 is not."""
        kl = float(exact_kl(*policies))
        for estimator, unbiased in ((k1, True), (k2, False), (k3, True)):
            estimate = float(self.expectation(estimator, *policies))
            assert (abs(estimate - kl) < 1e-12) == unbiased

    def gradients(self, estimator, policies):
        return jax.grad(lambda logits: self.expectation(estimator, logits, policies[1]))(
            policies[0]
        )

    def test_k1_as_a_loss_teaches_nothing(self, policies):
        np.testing.assert_allclose(self.gradients(k1, policies), 0, atol=1e-15)

    def test_k2_as_a_loss_is_the_kl(self, policies):
        np.testing.assert_allclose(self.gradients(k2, policies), kl_gradient(*policies), atol=1e-14)

    def test_k3_as_a_loss_is_the_other_kl(self, policies):
        forward = jax.grad(lambda logits: exact_kl(policies[1], logits))(policies[0])
        np.testing.assert_allclose(self.gradients(k3, policies), forward, atol=1e-14)
        assert jnp.abs(forward - kl_gradient(*policies)).max() > 0.01

    def test_the_kl_is_convex_in_the_policy_and_zero_at_the_reference(self, policies):
        assert float(exact_kl(policies[0], policies[0])) == 0
        assert float(exact_kl(*policies)) > 0
        np.testing.assert_allclose(kl_gradient(policies[1], policies[1]), 0, atol=1e-15)


class TestAdvantages:
    """GAE at the ends of lambda, and what it must not notice."""

    rng = np.random.default_rng(4)
    rewards, values = rng.normal(size=(2, 3, 8))
    mask = np.ones((3, 8), bool)

    def test_lambda_zero_is_the_td_error(self, x64):
        advantages, _ = gae(self.rewards, self.values, self.mask, gamma=0.9, gae_lambda=0.0)
        after = np.pad(self.values[:, 1:], ((0, 0), (0, 1)))
        np.testing.assert_allclose(advantages, self.rewards + 0.9 * after - self.values, atol=1e-12)

    def test_lambda_one_is_the_return_less_the_value(self, x64):
        advantages, returns = gae(self.rewards, self.values, self.mask, gamma=0.9, gae_lambda=1.0)
        expected = [
            [sum(0.9**k * row[t + k] for k in range(8 - t)) for t in range(8)]
            for row in self.rewards
        ]
        np.testing.assert_allclose(returns, expected, atol=1e-12)
        np.testing.assert_allclose(advantages, expected - self.values, atol=1e-12)

    def test_the_true_value_function_leaves_no_advantage(self, x64):
        """Rewards known, values exact: every delta is 0, whatever lambda."""
        values = np.cumsum(self.rewards[:, ::-1], axis=1)[:, ::-1]
        advantages, _ = gae(self.rewards, values, self.mask, gamma=1.0, gae_lambda=0.7)
        np.testing.assert_allclose(advantages, 0, atol=1e-12)

    def test_a_baseline_of_the_state_moves_no_expected_gradient(self, x64):
        """Lambda 1: returns do not depend on the values at all."""
        one = gae(self.rewards, self.values, self.mask, gamma=0.9, gae_lambda=1.0)[1]
        other = gae(self.rewards, self.values * 3 + 1, self.mask, gamma=0.9, gae_lambda=1.0)[1]
        np.testing.assert_allclose(one, other, atol=1e-12)

    def test_a_termination_is_a_wall(self, x64):
        """Two episodes in one row are the two alone."""
        flags = np.zeros((3, 8), bool)
        flags[:, 4] = True
        settings = {"gamma": 0.9, "gae_lambda": 0.8}
        whole = gae(self.rewards, self.values, self.mask, terminations=flags, **settings)[0]
        for part in (slice(0, 5), slice(5, 8)):
            alone = gae(*(x[:, part] for x in (self.rewards, self.values, self.mask)), **settings)
            np.testing.assert_allclose(whole[:, part], alone[0], atol=1e-12)

    def test_truncation_at_the_next_state_is_no_cut_for_one_step_returns(self, x64):
        """At lambda 0 a cut that is bootstrapped from V(t + 1) is invisible."""
        after = np.pad(self.values[:, 1:], ((0, 0), (0, 1)))
        cut = {"truncations": self.mask, "final_values": after}
        settings = {"gamma": 0.9, "gae_lambda": 0.0}
        np.testing.assert_allclose(
            gae(self.rewards, self.values, self.mask, **cut, **settings)[0],
            gae(self.rewards, self.values, self.mask, **settings)[0],
            atol=1e-12,
        )


class TestPolicyGradient:
    def test_at_ratio_one_ppo_is_the_policy_gradient(self, x64):
        rng = np.random.default_rng(5)
        logits, advantages = jnp.asarray(rng.normal(size=(10, 4))), rng.normal(size=10)
        actions = rng.integers(0, 4, 10)

        def ppo(logits):
            logps = action_logps(logits, actions)
            behaviour = jax.lax.stop_gradient(logps)
            return ppo_policy_loss(logps, behaviour, advantages, clip_range=0.2).sum()

        def reinforce(logits):
            return -jnp.sum(action_logps(logits, actions) * advantages)

        np.testing.assert_allclose(jax.grad(ppo)(logits), jax.grad(reinforce)(logits), atol=1e-14)

    def test_the_clipped_loss_is_never_below_the_unclipped_one(self):
        """It is a pessimistic bound on the surrogate."""
        rng = np.random.default_rng(6)
        logps, behaviour, advantages = rng.normal(size=(3, 500)).astype(np.float32)
        wide = ppo_policy_loss(logps, behaviour, advantages, clip_range=1e9)
        assert (ppo_policy_loss(logps, behaviour, advantages, clip_range=0.2) >= wide).all()

    def test_a_large_gain_is_never_taken_twice(self):
        """Past the clip range on the good side, going on changes nothing."""
        far = ppo_policy_loss(jnp.array([1.0]), jnp.zeros(1), jnp.ones(1), clip_range=0.2)
        farther = ppo_policy_loss(jnp.array([2.0]), jnp.zeros(1), jnp.ones(1), clip_range=0.2)
        np.testing.assert_array_equal(far, farther)


def test_whitening_ignores_scale_and_shift(x64):
    x = np.random.default_rng(7).normal(size=(4, 9))
    mask = np.random.default_rng(8).random((4, 9)) < 0.6
    np.testing.assert_allclose(whiten(3 * x + 100, mask), whiten(x, mask), atol=1e-10)
    np.testing.assert_allclose(whiten(whiten(x, mask), mask), whiten(x, mask), atol=1e-12)


def test_the_controller_rests_at_its_target():
    settings = {"target": 6.0, "horizon": 100.0, "batch_size": 10}
    assert float(adapted_coef(jnp.float32(0.2), jnp.float32(6.0), **settings)) == pytest.approx(0.2)
