"""The theorems behind benchmarks/results/exact.md, in a world of fifteen enumerated responses."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.exact import convergence
from benchmarks.exact.baseline_table import SIZE, baseline_results
from benchmarks.exact.clip_table import VARIANTS, clip_results
from benchmarks.exact.estimates import moments
from benchmarks.exact.gae_table import LAMBDAS, gae_results
from benchmarks.exact.groups import all_groups, probabilities
from benchmarks.exact.kl_tables import loss_results, policies, value_results
from benchmarks.exact.methods import ppo_method
from benchmarks.exact.tables import Table, markdown, number
from benchmarks.exact.training import arrive, distance
from benchmarks.exact.world import (
    BETA,
    RESPONSES,
    draw,
    logits_of,
    logps,
    make_world,
    objective,
    optimal_logps,
    params_of,
    policy_at,
    token_scores,
)
from jaxalign import best_of_group_advantages, k1, reinforce_loss

pytestmark = pytest.mark.slow


EXACT = 1e-10
gradient = jax.jit(jax.grad(objective))


@pytest.fixture(scope="module", autouse=True)
def double():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def world(double):
    return make_world()


class Oracle:
    """Probabilities and J by walking the tree of prefixes; no jax."""

    def __init__(self, world):
        self.reference, self.scores = np.asarray(world.reference), np.asarray(world.scores)

    @staticmethod
    def logp(logits, response):
        total, prefix = 0.0, ()
        for token in response:
            row = [(), (1,), (2,), (1, 1), (1, 2), (2, 1), (2, 2)].index(prefix)
            total += logits[row][token] - math.log(sum(math.exp(x) for x in logits[row]))
            prefix += (token,)
        return total

    def objective(self, logits):
        value = 0.0
        for response, score in zip(RESPONSES, self.scores, strict=True):
            logp = self.logp(logits, response)
            value += math.exp(logp) * (score - BETA * (logp - self.logp(self.reference, response)))
        return value

    def partition(self):
        """Z = E_ref[exp(score / beta)]."""
        return sum(
            math.exp(self.logp(self.reference, response) + score / BETA)
            for response, score in zip(RESPONSES, self.scores, strict=True)
        )


def test_every_response_is_there_once():
    strings = set()
    for a, b, c in itertools.product(range(3), repeat=3):  # cut each string after its first end
        strings.add((a,) if a == 0 else (a, b) if b == 0 else (a, b, c))
    assert len(RESPONSES) == 15 and set(RESPONSES) == strings


def test_log_probabilities_are_those_of_the_tree(world):
    logits = np.asarray(policy_at(world, 0.3))
    expected = [Oracle.logp(logits, response) for response in RESPONSES]
    np.testing.assert_allclose(logps(jnp.asarray(logits)), expected, atol=1e-14)
    assert sum(map(math.exp, expected)) == pytest.approx(1, abs=1e-14)


def test_the_gradient_of_the_objective(world):
    """Autodiff of the finite sum, the score-function identity, and differences of the oracle."""
    logits, oracle = policy_at(world, 0.5), Oracle(world)
    automatic = gradient(logits, world)
    scores = world.scores - BETA * k1(logps(logits), logps(world.reference))
    weights = scores * jnp.exp(logps(logits))
    identity = jnp.einsum("r,rtpv->pv", weights, token_scores(logits))
    np.testing.assert_allclose(identity, automatic, atol=1e-14)
    plain, step = np.array(logits), 1e-5
    for where in np.ndindex(plain.shape):
        sides = []
        for sign in (1, -1):
            moved = plain.copy()
            moved[where] += sign * step
            sides.append(oracle.objective(moved))
        assert automatic[where] == pytest.approx((sides[0] - sides[1]) / (2 * step), abs=1e-9)


def test_the_optimum(world):
    """No gradient there, J = beta log Z, and any other policy is worse by beta times its KL."""
    oracle, best = Oracle(world), logits_of(optimal_logps(world))
    assert float(jnp.abs(gradient(best, world)).max()) < 1e-14
    assert float(jnp.abs(gradient(world.reference, world)).max()) > 0.05
    assert oracle.objective(np.asarray(best)) == pytest.approx(BETA * math.log(oracle.partition()))
    other = distance(world.reference, world)
    assert float(other.optimum - other.objective) == pytest.approx(BETA * float(other.kl))


def test_draws_follow_the_policy(world):
    """Frequencies of 20,000 draws within five standard errors."""
    counts = np.bincount(draw(world.reference, jax.random.key(0), 20_000), minlength=15)
    chances = np.exp(logps(world.reference))
    errors = np.sqrt(20_000 * chances * (1 - chances))
    assert (np.abs(counts - 20_000 * chances) < 5 * errors).all()


def test_the_objective_of_ppo_is_the_policy_gradient(world):
    """At the behaviour policy, whatever the values at lambda 1; divided by the mean length."""
    method, logits = ppo_method(gae_lambda=1.0), policy_at(world, 0.5)
    params = params_of(logits, jnp.arange(7.0))
    batch = jax.jit(method.collect)(params, world, jax.random.key(0))
    key = jax.random.key(0)
    sums = jax.jit(jax.grad(lambda x: method.loss_fn(x, batch, key)[0]))(params)
    truth = gradient(logits, world)
    np.testing.assert_allclose(sums["logits"], -truth, atol=1e-14)
    lengths = np.array([len(response) for response in RESPONSES])
    assert float(batch.mask.sum()) == pytest.approx(float(jnp.exp(logps(logits)) @ lengths))


class TestConvergence:
    @pytest.mark.parametrize(
        "name",
        [
            "DPO, pairs of the reference",
            "PPO, GAE 0.95, clip, 4 epochs",
            "RLOO, clip, 4 epochs",
            "GRPO's advantages, KL in the score",
            "leave-one-out, loss corrected k3 of responses, 4 epochs",
        ],
    )
    def test_to_the_optimum(self, world, name):
        found = convergence.arrival(convergence.TO_THE_OPTIMUM[name](), world)
        assert found.gap < 1e-4
        assert found.optimum - found.objective < 1e-9
        at_rest = found.gradient < 1e-5
        assert at_rest != (name == "GRPO's advantages, KL in the score")

    def test_grpo_as_published_ends_elsewhere(self, world):
        """At rest, and not at the optimum: deviations, tokens' k3 and lengths."""
        name = "GRPO as published (loss k3 of tokens, mean over tokens)"
        found = convergence.arrival(convergence.ELSEWHERE[name](), world, updates=400)
        assert found.gradient < 1e-5
        assert found.gap > 0.2 and found.kl > 0.01

    def test_a_group_mean_raises_the_price_of_the_kl(self, world):
        """Dr. GRPO with the KL in the loss ends at the optimum of beta G / (G - 1)."""
        method = convergence.ELSEWHERE["Dr. GRPO, loss k2 of responses"]()
        logits, _ = arrive(method, world, jnp.arange(1), updates=400)
        assert distance(logits[0], world).gap > 0.5
        assert distance(logits[0], world, convergence.shrunk_optimum(world)).gap < 1e-6

    def test_from_samples(self, world):
        method = ppo_method(samples=convergence.SAMPLES)
        found = convergence.sampled_distances(method, world, seeds=2, updates=600)
        assert float(found.kl.max()) < 1e-4  # 0.35 at the start
        assert float(found.gap.max()) < 0.2  # 2.3 at the start


class TestEstimatorsOfTheKL:
    def biases(self, world, off_policy):
        results = value_results(world, *policies(world, off_policy=off_policy))
        del results["KL"]
        return {name: np.abs(np.asarray(bias)) for name, (bias, _) in results.items()}

    def test_values_on_policy(self, world):
        for name, bias in self.biases(world, off_policy=False).items():
            if name.startswith("k2"):
                assert (bias > 0.04).all()
            else:
                assert (bias < EXACT).all()

    def test_values_off_policy(self, world):
        """Correcting each token by its own ratio is not enough."""
        for name, bias in self.biases(world, off_policy=True).items():
            if name == "corrected k3, response":
                assert (bias < EXACT).all()
            else:
                assert (bias > 1e-3).all()

    @pytest.mark.parametrize(
        ("off_policy", "right"),
        [
            (
                False,
                {
                    "loss of response, k2",
                    "loss of response, corrected k3",
                    "reward of response, k1",
                    "reward of tokens to go, k1",
                },
            ),
            (True, {"loss of response, corrected k3"}),
        ],
    )
    def test_gradients(self, world, off_policy, right):
        results = loss_results(world, *policies(world, off_policy=off_policy))
        del results["KL"]
        for name, found in results.items():
            assert np.all(found.bias < EXACT) if name in right else np.all(found.bias > 0.03), name
        sizes = results["loss of response, k1"].size
        assert np.all(sizes > 0.1) if off_policy else np.all(sizes < EXACT)

    def test_charging_only_what_follows_is_less_noisy(self, world):
        results = loss_results(world, *policies(world, off_policy=False))
        noise = [results[f"reward of {x}, k1"].deviation for x in ("response", "tokens to go")]
        assert np.all(noise[1] < 0.9 * noise[0])


def test_gae_over_lambda(world):
    """Exact values: unbiased, and noisier with lambda. Wrong ones: unbiased at lambda 1 only."""
    results = gae_results(world)
    exact = results.pop("exact")
    assert LAMBDAS[-1] == 1 and np.all(exact.bias < EXACT)
    assert np.all(np.diff(exact.deviation) > 0)
    for found in results.values():
        assert found.bias[-1] < EXACT and np.all(found.bias[:-1] > 0.1)
        assert np.all(np.diff(found.bias) < 0)


def test_the_clip(world):
    """Off policy only the unclipped ratio of the response is unbiased; on policy all but GSPO's."""
    results = clip_results(world)
    for name in VARIANTS:
        on_policy, *off_policy = results[name].bias
        assert (on_policy < EXACT) == (not name.startswith("mean"))
        if name == "response: unclipped":
            assert max(off_policy) < EXACT
        elif name == "response: cap 2":  # nothing exceeds it near the behaviour policy
            assert off_policy[0] < EXACT < 0.2 < min(off_policy[1:])
        elif name == "response: clip 0.2 (RLOO)":  # a policy that went astray is not clipped
            assert off_policy[2] < EXACT < 0.5 < min(off_policy[:2])
        else:
            assert min(off_policy) > 0.1
    whole, tokens = (results[f"{x}: unclipped"].deviation for x in ("response", "token"))
    assert np.all(tokens[1:] < whole[1:])


def test_the_cap_of_cispo_on_the_way(world):
    """Where PPO's clip has lost the direction, a cap keeps it."""
    results = clip_results(world)
    assert results["token: cap 1.28 (CISPO)"].cosine[2] > 0.8
    assert results["token: clip 0.2 (PPO)"].cosine[2] < 0.5


def test_baselines(world):
    results = baseline_results(world)
    names = list(results)
    for name in names[:4]:
        assert results[name].bias < EXACT
    assert max(results[name].deviation for name in names[1:4]) < 0.7 * results[names[0]].deviation
    centred = results["mean of the group (Dr. GRPO)"]
    assert centred.cosine == pytest.approx(1, abs=1e-12)
    assert centred.size == pytest.approx((SIZE - 1) / SIZE, abs=1e-12)
    for name in names[5:]:
        assert results[name].cosine < 1 - 1e-4


def test_best_of_group_advantages_are_the_gradient_of_the_expected_best(world):
    """E[max of a group] by enumeration, differentiated, against the estimator's mean."""
    members, orders = all_groups(3)
    logits = policy_at(world, 0.5)
    best = jnp.max(world.scores[members], axis=1)
    advantages = best_of_group_advantages(world.scores[members], jnp.ones(members.shape, bool))

    def expected_best(logits):
        return jnp.sum(probabilities(logps(logits), members, orders) * best)

    def losses(policy):
        return jnp.sum(reinforce_loss(policy, advantages), axis=1)

    weights = probabilities(logps(logits), members, orders)
    assert float(weights.sum()) == pytest.approx(1, abs=1e-12)
    scores = jnp.sum(token_scores(logits), axis=1)[members]
    mean, _ = moments(losses, logps(logits)[members], scores, weights)
    np.testing.assert_allclose(-mean, jax.jit(jax.grad(expected_best))(logits), atol=1e-13)


def test_cells_and_pages():
    assert [number(x) for x in (0.0, -1e-12, 0.5, -1.234, 0.0123, math.nan)] == [
        "0", "0", "0.50", "-1.23", "0.012", "–",
    ]  # fmt: skip
    table = Table(title="T", shows="S.", conclusion="C.", header=("a", "b"), rows=[("x", "1")])
    assert markdown(table) == "## T\n\nS.\n\n| a | b |\n|:--|--:|\n| x | 1 |\n\nC.\n"
