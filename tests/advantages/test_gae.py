"""GAE and shaped rewards: by hand, against the explicit sum, at ends of episodes, with holes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from jax.test_util import check_grads

from jaxalign import (
    gae,
    gae_associative,
    shaped_rewards,
)
from tests.cases.advantages.gae import CASES
from tests.checks.of_cases import checks_of
from tests.oracles import gae as oracle

TestCases = checks_of(CASES)


compiled = partial(jax.jit, static_argnames=("gamma", "gae_lambda"))
FORMS = {"scan": compiled(gae), "associative": compiled(gae_associative)}
scan = FORMS["scan"]


def draw(seed, rows=6, steps=11):
    """Random episodes: holes in the mask, terminations, truncations, rollouts that go on."""
    rng = np.random.default_rng(seed)
    rewards, values, final_values = rng.normal(size=(3, rows, steps))
    mask = rng.random((rows, steps)) < 0.7
    mask[0], mask[1, 1:] = False, False
    flags = rng.random((2, rows, steps)) < 0.2
    return {
        "rewards": rewards,
        "values": values,
        "mask": mask,
        "terminations": flags[0],
        "truncations": flags[1],
        "final_values": final_values,
        "bootstrap_values": rng.normal(size=rows),
    }


def split(case):
    case = dict(case)
    return [case.pop(name) for name in ("rewards", "values", "mask")], case


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_by_hand(form):
    # gamma 1/2, lambda 1/2; delta = 1 + 1 - 2 = 0, 2 + 2 - 2 = 2, 4 - 4 = 0
    # A_2 = 0, A_1 = 2 + A_2 / 4 = 2, A_0 = 0 + 2 / 4
    rewards, values = jnp.array([[1.0, 2.0, 4.0]]), jnp.array([[2.0, 2.0, 4.0]])
    advantages, returns = form(rewards, values, jnp.ones((1, 3), bool), gamma=0.5, gae_lambda=0.5)
    assert advantages.tolist() == [[0.5, 2.0, 0.0]]
    assert returns.tolist() == [[2.5, 4.0, 4.0]]


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_ends_by_hand(form):
    """Four rows, one step each, reward 1, value 0: terminal, truncated at a state of value 10, cut
    by the end of the rollout before a state of value 20, and both flags at once."""
    advantages, _ = form(
        jnp.ones((4, 1)),
        jnp.zeros((4, 1)),
        jnp.ones((4, 1), bool),
        gamma=0.5,
        gae_lambda=0.9,
        terminations=jnp.array([[True], [False], [False], [True]]),
        truncations=jnp.array([[False], [True], [False], [True]]),
        final_values=jnp.full((4, 1), 10.0),
        bootstrap_values=jnp.full(4, 20.0),
    )
    assert advantages[:, 0].tolist() == [1, 6, 11, 1]


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("gamma, gae_lambda", [(0.99, 0.95), (1.0, 1.0), (0.9, 0.0), (0.0, 0.5)])
def test_against_the_explicit_sum(x64, form, gamma, gae_lambda):
    case = draw(0)
    (rewards, values, mask), rest = split(case)
    estimate = partial(form, gamma=gamma, gae_lambda=gae_lambda)
    ours = estimate(rewards, values, mask, **rest)
    expected = oracle.gae(rewards, values, mask, gamma, gae_lambda, **rest)
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)
        assert not a[~mask].any()


@pytest.mark.parametrize("name", ["terminations", "truncations", "bootstrap_values"])
def test_without_one_kind_of_end(x64, name):
    case = draw(1)
    del case[name]
    (rewards, values, mask), rest = split(case)
    ours = scan(rewards, values, mask, gamma=0.9, gae_lambda=0.8, **rest)
    expected = oracle.gae(rewards, values, mask, 0.9, 0.8, **rest)
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


def test_associative_is_scan_over_a_thousand_steps(x64):
    rng = np.random.default_rng(2)
    rewards, values = rng.normal(size=(2, 2, 1000))
    mask = rng.random((2, 1000)) < 0.9
    given = {"gamma": 0.999, "gae_lambda": 0.97}
    one, other = (form(rewards, values, mask, **given) for form in FORMS.values())
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_what_is_masked_never_counts(form):
    (rewards, values, mask), rest = split(draw(3))
    estimate = partial(form, gamma=0.9, gae_lambda=0.8)
    clean = estimate(rewards, values, mask, **rest)
    rewards, values = (np.where(mask, x, np.nan) for x in (rewards, values))
    rest["final_values"] = np.where(mask & rest["truncations"], rest["final_values"], np.nan)
    jax.tree.map(np.testing.assert_array_equal, estimate(rewards, values, mask, **rest), clean)
    total = jax.jit(jax.grad(lambda r, v: estimate(r, v, mask, **rest)[0].sum(), argnums=(0, 1)))
    grads = total(jnp.asarray(rewards), jnp.asarray(values))
    assert all(jnp.isfinite(g).all() and not g[~mask].any() for g in grads)


def test_padding_changes_nothing():
    """More masked steps, before or after, and rows in another order: the same bits."""
    (rewards, values, mask), rest = split(draw(4))
    estimate = partial(scan, gamma=0.9, gae_lambda=0.8)
    expected = estimate(rewards, values, mask, **rest)[0]

    def pad(x):
        return np.pad(x[::-1], ((0, 0), (3, 2))) if x.ndim == 2 else x[::-1]

    padded = estimate(*map(pad, (rewards, values, mask)), **jax.tree.map(pad, rest))[0]
    np.testing.assert_array_equal(padded[::-1, 3:-2], expected)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_observation_tokens_in_between_change_nothing(form):
    """Masked steps put between the decisions, with any numbers in them: the same advantages."""
    rng = np.random.default_rng(8)
    rewards, values = rng.normal(size=(2, 2, 4)).astype(np.float32)
    estimate = partial(form, gamma=0.9, gae_lambda=0.8)
    expected = estimate(rewards, values, np.ones((2, 4), bool))
    places = np.array([0, 3, 4, 8])  # two, none and three observation tokens in between

    def spread(x):
        wide = rng.normal(100.0, 50.0, (2, 10)).astype(np.float32)
        wide[:, places] = x
        return wide

    mask = np.zeros((2, 10), bool)
    mask[:, places] = True
    for a, b in zip(estimate(spread(rewards), spread(values), mask), expected, strict=True):
        np.testing.assert_allclose(a[:, places], b, rtol=1e-6, atol=1e-6)


def test_the_last_token_is_judged_alike_however_the_response_ended():
    """A(last) = score - kl_coef kl - V, whether padding follows or a length limit cut it."""
    mask = jnp.array([[True, True, False, False], [True, True, True, True]])
    kl, values = jnp.full((2, 4), 0.5), jnp.full((2, 4), 0.25)
    rewards = shaped_rewards(jnp.ones(2), kl, mask, kl_coef=0.1)
    advantages, _ = scan(rewards, values, mask, gamma=0.9, gae_lambda=0.8)
    np.testing.assert_allclose(advantages[[0, 1], [1, 3]], [0.7, 0.7], rtol=1e-6)


@pytest.mark.slow
def test_gradients(x64):
    (rewards, values, mask), rest = split(draw(5, rows=3, steps=4))
    fn = jax.jit(lambda r, v: gae(r, v, mask, gamma=0.9, gae_lambda=0.8, **rest))
    check_grads(fn, (rewards, values), order=2, modes=["rev"])


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_inside_shard_map(form):
    (rewards, values, mask), rest = split(draw(6, rows=8, steps=5))
    settings = {"gamma": 0.9, "gae_lambda": 0.8}
    expected = form(rewards, values, mask, **settings, **rest)
    mesh = jax.make_mesh((8,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))

    @jax.jit
    @partial(jax.shard_map, mesh=mesh, in_specs=P("i"), out_specs=P("i"))
    def shards(arrays, rest):
        return form(*arrays, **settings, **rest)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6),
        shards((rewards, values, mask), rest),
        expected,
    )


def test_extreme_rewards_are_finite():
    rewards = jnp.array([[1e4, -1e4, 1e4]])
    for form in FORMS.values():
        advantages, _ = form(rewards, -rewards, jnp.ones((1, 3), bool), gamma=1.0, gae_lambda=1.0)
        assert jnp.isfinite(advantages).all()


def test_truncations_need_final_values():
    x = jnp.zeros((1, 2))
    with pytest.raises(ValueError, match="truncations need final_values"):
        gae(x, x, x == 0, gamma=1.0, gae_lambda=1.0, truncations=x == 0)


def test_shapes_must_agree():
    x = jnp.zeros((2, 3))
    with pytest.raises(AssertionError):
        gae(x, x, jnp.ones((2, 1), bool), gamma=1.0, gae_lambda=1.0)
    with pytest.raises(AssertionError):
        gae(x, x, x == 0, gamma=1.0, gae_lambda=1.0, bootstrap_values=jnp.zeros((2, 1)))
    with pytest.raises(AssertionError):
        shaped_rewards(jnp.zeros(3), x, x == 0, kl_coef=0.1)


def test_masks_of_few_bits_count_beyond_them():
    """127 tokens are the most that int8 can count: the score is that of the last of 300."""
    mask = jnp.ones((1, 300), bool).at[0, -1].set(False)
    arguments = jnp.ones(1), jnp.zeros((1, 300))
    expected = shaped_rewards(*arguments, mask, kl_coef=0.1)
    assert expected[0, 298] == 1 and expected.sum() == 1
    for dtype in ("int8", "uint8"):
        given = shaped_rewards(*arguments, mask.astype(dtype), kl_coef=0.1)
        np.testing.assert_array_equal(given, expected)


class TestAdvantages:
    """GAE at the ends of lambda, and what it must not notice."""

    rng = np.random.default_rng(4)
    rewards, values = rng.normal(size=(2, 3, 8))
    mask = np.ones((3, 8), bool)

    def test_lambda_zero_is_the_td_error(self, x64):
        advantages, _ = scan(self.rewards, self.values, self.mask, gamma=0.9, gae_lambda=0.0)
        after = np.pad(self.values[:, 1:], ((0, 0), (0, 1)))
        np.testing.assert_allclose(advantages, self.rewards + 0.9 * after - self.values, atol=1e-12)

    def test_lambda_one_is_the_return_less_the_value(self, x64):
        advantages, returns = scan(self.rewards, self.values, self.mask, gamma=0.9, gae_lambda=1.0)
        expected = [
            [sum(0.9**k * row[t + k] for k in range(8 - t)) for t in range(8)]
            for row in self.rewards
        ]
        np.testing.assert_allclose(returns, expected, atol=1e-12)
        np.testing.assert_allclose(advantages, expected - self.values, atol=1e-12)

    def test_the_true_value_function_leaves_no_advantage(self, x64):
        """Rewards known, values exact: every delta is 0, whatever lambda."""
        values = np.cumsum(self.rewards[:, ::-1], axis=1)[:, ::-1]
        advantages, _ = scan(self.rewards, values, self.mask, gamma=1.0, gae_lambda=0.7)
        np.testing.assert_allclose(advantages, 0, atol=1e-12)

    def test_a_baseline_of_the_state_moves_no_expected_gradient(self, x64):
        """Lambda 1: returns do not depend on the values at all."""
        one = scan(self.rewards, self.values, self.mask, gamma=0.9, gae_lambda=1.0)[1]
        other = scan(self.rewards, self.values * 3 + 1, self.mask, gamma=0.9, gae_lambda=1.0)[1]
        np.testing.assert_allclose(one, other, atol=1e-12)

    def test_a_termination_is_a_wall(self, x64):
        """Two episodes in one row are the two alone."""
        flags = np.zeros((3, 8), bool)
        flags[:, 4] = True
        settings = {"gamma": 0.9, "gae_lambda": 0.8}
        whole = scan(self.rewards, self.values, self.mask, terminations=flags, **settings)[0]
        for part in (slice(0, 5), slice(5, 8)):
            alone = scan(*(x[:, part] for x in (self.rewards, self.values, self.mask)), **settings)
            np.testing.assert_allclose(whole[:, part], alone[0], atol=1e-12)

    def test_truncation_at_the_next_state_is_no_cut_for_one_step_returns(self, x64):
        """At lambda 0 a cut that is bootstrapped from V(t + 1) is invisible."""
        after = np.pad(self.values[:, 1:], ((0, 0), (0, 1)))
        cut = {"truncations": self.mask, "final_values": after}
        settings = {"gamma": 0.9, "gae_lambda": 0.0}
        np.testing.assert_allclose(
            scan(self.rewards, self.values, self.mask, **cut, **settings)[0],
            scan(self.rewards, self.values, self.mask, **settings)[0],
            atol=1e-12,
        )
