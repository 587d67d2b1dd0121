"""V-trace: off-policy returns with truncated ratios."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign import gae, lambda_returns, vtrace
from tests.cases.advantages.vtrace import CASES
from tests.checks.of_cases import checks_of
from tests.episodes import draw

CLOSE = {"rtol": 1e-10, "atol": 1e-10}
TestCases = checks_of(CASES)
compiled = jax.jit(vtrace, static_argnames=("gamma", "trace_lambda", "rho_clip", "c_clip"))


def test_vtrace_is_constant_in_the_values_of_final_observations():
    """Targets and advantages are data, also where an episode is cut and bootstraps."""

    def total(final_values):
        ends = {"truncations": jnp.asarray([[False, True]]), "final_values": final_values}
        zeros, mask = jnp.zeros((1, 2)), jnp.ones((1, 2), bool)
        return sum(jnp.sum(x) for x in compiled(zeros, zeros, zeros, mask, gamma=0.5, **ends))

    final_values = jnp.asarray([[0.0, 8.0]])
    assert float(total(final_values)) == 2 * (4 + 2)  # by hand: 8 gamma, then half of that
    np.testing.assert_array_equal(jax.jit(jax.grad(total))(final_values), [[0.0, 0.0]])


def test_vtrace_by_hand():
    # ratios 2, 1/4; rho_clip 1, c_clip 1/2; gamma 1, lambda 1; rewards 3, 8; values 1, 4
    # rho = 1, 1/4; c = 1/2, 1/4; delta = 1 (3 + 4 - 1) = 6, (8 - 4) / 4 = 1
    # v_1 = 4 + 1 = 5, v_0 = 1 + 6 + (5 - 4) / 2 = 7.5; A_1 = 1, A_0 = 3 + 5 - 1 = 7
    log_ratios = jnp.log(jnp.array([[2.0, 0.25]]))
    rewards, values = jnp.array([[3.0, 8.0]]), jnp.array([[1.0, 4.0]])
    mask, settings = jnp.ones((1, 2), bool), {"gamma": 1.0, "rho_clip": 1.0, "c_clip": 0.5}
    advantages, targets = compiled(log_ratios, rewards, values, mask, **settings)
    np.testing.assert_allclose(targets, [[7.5, 5]], rtol=1e-6)
    np.testing.assert_allclose(advantages, [[7, 1]], rtol=1e-6)
    # lambda 1/2: v_0 = 1 + 6 + 1/4; A_0 = 3 + (5 + 4) / 2 - 1
    advantages, targets = compiled(log_ratios, rewards, values, mask, trace_lambda=0.5, **settings)
    np.testing.assert_allclose(targets, [[7.25, 5]], rtol=1e-6)
    np.testing.assert_allclose(advantages, [[6.5, 1]], rtol=1e-6)


def test_vtrace_on_policy_is_the_lambda_return(x64):
    """Espeholt et al. 2018, Remark 1; the advantage is then that of GAE."""
    (rewards, values, mask), ends, _ = draw(3)
    settings = {"gamma": 0.9, **ends}
    advantages, targets = compiled(
        np.zeros(mask.shape), rewards, values, mask, trace_lambda=0.7, **settings
    )
    returns = lambda_returns(rewards, values, mask, trace_lambda=0.7, **settings)
    np.testing.assert_allclose(targets, returns, **CLOSE)
    expected, _ = gae(rewards, values, mask, gae_lambda=0.7, **settings)
    np.testing.assert_allclose(advantages, expected, **CLOSE)


def test_vtrace_of_an_action_the_policy_never_takes_is_the_value():
    (rewards, values, mask), ends, _ = draw(4)
    never = np.full(mask.shape, -1e4)
    advantages, targets = compiled(never, rewards, values, mask, gamma=0.9, **ends)
    assert not advantages.any()
    np.testing.assert_array_equal(targets, np.where(mask, values, 0).astype(np.float32))


def test_vtrace_has_no_gradient():
    (rewards, values, mask), ends, log_ratios = draw(9)

    def total(*arrays):
        return sum(x.sum() for x in vtrace(*arrays, mask, gamma=0.9, **ends))

    arrays = tuple(jnp.asarray(x, jnp.float32) for x in (log_ratios, rewards, values))
    assert not any(g.any() for g in jax.jit(jax.grad(total, (0, 1, 2)))(*arrays))
