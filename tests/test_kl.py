"""KL estimators and the exact KL: by hand, against the definition, at extremes, gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import jaxalign
from jaxalign import (
    adapted_coef,
    fused_exact_kl,
    log_softmax,
)
from tests.cases.kl import CASES
from tests.checks.of_cases import checks_of
from tests.oracles import kl as oracle

TestCases = checks_of(CASES)
exact_kl = jax.jit(jaxalign.exact_kl)
k1 = jax.jit(jaxalign.k1)
k2 = jax.jit(jaxalign.k2)
k3 = jax.jit(jaxalign.k3)


def test_estimators_by_hand():
    policy, reference = jnp.float32(np.log(0.5)), jnp.float32(np.log(0.25))
    assert float(k1(policy, reference)) == pytest.approx(np.log(2))
    assert float(k2(policy, reference)) == pytest.approx(np.log(2) ** 2 / 2)
    assert float(k3(policy, reference)) == pytest.approx(0.5 - 1 + np.log(2))  # q / p = 1/2


@pytest.mark.parametrize("name", ["k1", "k2", "k3"])
def test_estimators_against_the_formula(x64, name):
    rng = np.random.default_rng(0)
    policy, reference = rng.uniform(-20, 0, (2, 200))
    ours = {"k1": k1, "k2": k2, "k3": k3}[name](policy, reference)
    expected = [getattr(oracle, name)(p, q) for p, q in zip(policy, reference, strict=True)]
    np.testing.assert_allclose(ours, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_k3_is_never_negative_and_exact_near_zero(dtype):
    """exp(-d) - 1 + d cancels: at d = 1e-4 float32 would keep 3 digits of it, at 1e-8 none."""
    d = jnp.array([0.0, 1e-8, -1e-8, 1e-4, -1e-4, 0.2, -0.2, 0.3, -0.3, 5.0, -5.0], dtype)
    exact = [oracle.k3(float(x), 0.0) for x in d]
    exact[1:5] = [float(x) ** 2 / 2 - float(x) ** 3 / 6 for x in d[1:5]]
    ours = k3(d, jnp.zeros_like(d))
    assert (ours >= 0).all()
    np.testing.assert_allclose(ours, exact, rtol=2e-6)  # eight roundings of 2^-24, and of x / 0.25


@pytest.mark.parametrize("size", [1e2, 1e4])
def test_estimators_at_extremes_are_finite(size):
    d = jnp.array([-size, size], jnp.float32)
    for estimator in (k1, k2, k3):
        total = jax.jit(jax.value_and_grad(lambda d, e=estimator: e(d, jnp.zeros(2)).sum()))
        value, grads = total(d)
        assert jnp.isfinite(value) and jnp.isfinite(grads).all()
    # of k3, the last: not a dead gradient, as a clamp would leave
    assert grads[0] < -1e19 and float(grads[1]) == 1


def test_exact_kl_by_hand():
    p, q = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([0.25, 0.75]))
    expected = 0.5 * np.log(2) + 0.5 * np.log(2 / 3)
    assert float(exact_kl(p, q)) == pytest.approx(expected, rel=1e-6)
    assert float(exact_kl(p, p)) == 0


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_exact_kl_against_the_definition(x64, scale):
    rng = np.random.default_rng(1)
    policy, reference = scale * rng.normal(size=(2, 20, 13))
    expected = [oracle.exact_kl(p, q) for p, q in zip(policy, reference, strict=True)]
    np.testing.assert_allclose(exact_kl(policy, reference), expected, rtol=1e-10, atol=1e-10)


def test_a_small_kl_is_right_in_float32():
    """Second order: KL = sum p d^2 / 2 about; the plain sum of p log(p / q) rounds at 1e-7."""
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(50, 20)).astype(np.float32)
    moved = logits + rng.normal(size=(50, 20)).astype(np.float32) * 1e-3
    ours = exact_kl(jnp.asarray(moved), jnp.asarray(logits))
    expected = [oracle.exact_kl(p, q) for p, q in zip(moved.tolist(), logits.tolist(), strict=True)]
    assert (ours >= 0).all()
    # KL ~ d^2 / 2, and d ~ 1e-3 carries the rounding of logits of size 3: 2 * 2e-7 / 1e-3
    np.testing.assert_allclose(ours, expected, rtol=2e-3)


@pytest.mark.slow
def test_exact_kl_at_extremes():
    logits = jnp.array([[1e4, 0.0, -1e4], [0.0, -jnp.inf, 0.0], [0.0, 0.0, 0.0]], jnp.float32)
    other = jnp.array([[-1e4, 0.0, 1e4], [0.0, 0.0, 0.0], [0.0, -1e4, 0.0]], jnp.float32)
    # row 2: p is 1/2, 0, 1/2 against thirds: log(3/2); row 3: (2 log(2/3) + log(2/3) + 1e4) / 3
    expected = [2e4, np.log(1.5), np.log(2 / 3) + 1e4 / 3]
    np.testing.assert_allclose(exact_kl(logits, other), expected, rtol=1e-6)
    grads = jax.jit(jax.grad(lambda logits: exact_kl(logits, other).sum()))(logits)
    assert jnp.isfinite(grads).all()
    forbidden = exact_kl(jnp.zeros(2), jnp.array([0.0, -jnp.inf]))
    assert float(forbidden) == np.inf  # p allows what q forbids


@pytest.mark.slow
def test_gradients(x64):
    rng = np.random.default_rng(3)
    policy, reference = rng.normal(size=(2, 4, 5))
    fn = jax.jit(lambda p, q: [kl(p, q) for kl in (k1, k2, k3, exact_kl)])
    check_grads(fn, (policy, reference), order=2, modes=["rev"])


@pytest.mark.parametrize(
    ("temperature", "softcaps"), [(1.0, (None, None)), (0.7, (None, None)), (0.7, (2.0, 0.5))]
)
def test_fused_exact_kl_is_dense(x64, temperature, softcaps):
    rng = np.random.default_rng(4)
    policy, reference = rng.normal(size=(2, 5, 3)), rng.normal(size=(2, 5, 4))
    policy_matrix, reference_matrix = rng.normal(size=(3, 7)), rng.normal(size=(4, 7))
    settings = {"temperature": temperature, "softcaps": softcaps, "chunk_size": 3}
    compiled = jax.jit(functools.partial(fused_exact_kl, **settings))
    fused = compiled(policy, policy_matrix, reference, reference_matrix)
    assert not fused[:, 0].any()
    logits = policy @ policy_matrix, reference @ reference_matrix
    logits = [
        z if cap is None else cap * np.tanh(z / cap)
        for z, cap in zip(logits, softcaps, strict=True)
    ]
    dense = exact_kl(logits[0] / temperature, logits[1] / temperature)
    np.testing.assert_allclose(fused[:, 1:], dense[:, :-1], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kl", [0.0, 5.7, 6.0, 6.6, 100.0])
def test_adapted_coef(x64, kl):
    settings = {"target": 6.0, "horizon": 10000.0, "batch_size": 256}
    ours = adapted_coef(jnp.float64(0.2), jnp.float64(kl), **settings)
    expected = oracle.adapted_coef(0.2, kl, **settings)
    assert float(ours) == pytest.approx(expected, rel=1e-12)
    assert np.sign(float(ours) - 0.2) == np.sign(kl - 6.0)


def test_shapes_must_agree():
    for fn in (k1, k2, k3, exact_kl):
        with pytest.raises(AssertionError):
            fn(jnp.zeros((2, 3)), jnp.zeros((1, 3)))


RESPONSES = 6


kl_gradient = jax.jit(jax.grad(exact_kl))


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
            estimate = float(jax.jit(self.expectation, static_argnums=0)(estimator, *policies))
            assert (abs(estimate - kl) < 1e-12) == unbiased

    def gradients(self, estimator, policies):
        expected = functools.partial(self.expectation, estimator, reference=policies[1])
        return jax.jit(jax.grad(expected))(policies[0])

    def test_k1_as_a_loss_teaches_nothing(self, policies):
        np.testing.assert_allclose(self.gradients(k1, policies), 0, atol=1e-15)

    def test_k2_as_a_loss_is_the_kl(self, policies):
        np.testing.assert_allclose(self.gradients(k2, policies), kl_gradient(*policies), atol=1e-14)

    def test_k3_as_a_loss_is_the_other_kl(self, policies):
        forward = jax.jit(jax.grad(lambda logits: exact_kl(policies[1], logits)))(policies[0])
        np.testing.assert_allclose(self.gradients(k3, policies), forward, atol=1e-14)
        assert jnp.abs(forward - kl_gradient(*policies)).max() > 0.01

    def test_the_kl_is_convex_in_the_policy_and_zero_at_the_reference(self, policies):
        assert float(exact_kl(policies[0], policies[0])) == 0
        assert float(exact_kl(*policies)) > 0
        np.testing.assert_allclose(kl_gradient(policies[1], policies[1]), 0, atol=1e-15)


def test_the_controller_rests_at_its_target():
    settings = {"target": 6.0, "horizon": 100.0, "batch_size": 10}
    assert float(adapted_coef(jnp.float32(0.2), jnp.float32(6.0), **settings)) == pytest.approx(0.2)


def test_kl_of_two_certain_distributions_that_disagree():
    """sum p d: each is sure up to e^-69, the one of what the other forbids."""
    logits = jnp.asarray([0.0, -69.0])
    np.testing.assert_allclose(exact_kl(logits, logits[::-1]), 69.0, rtol=1e-6)
