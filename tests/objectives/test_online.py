"""Losses on fresh pairs: names, the pure loss, the same update however the rows are cut, Nash-MD's
fixed points, and runs that raise the reward.
"""

import dataclasses
import functools
import math
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxalign import objectives
from jaxalign.batches.preferences import OnlineBatch, PairLogps, PreferenceBatch, ScoredResponses
from jaxalign.batches.tokens import TokenBatch
from jaxalign.config.loop import FitConfig, OptimizerConfig
from jaxalign.config.model import ModelConfig
from jaxalign.config.names import ONLINE_PAIR_LOSSES, OnlineLossName, OnlinePairLossName
from jaxalign.config.online import OnlineSettings
from jaxalign.config.place import PlaceConfig
from jaxalign.data.tokenizer_training import train_bpe
from jaxalign.errors import UserError
from jaxalign.losses import NASH_MD, ONLINE_LOSSES, nash_md_loss
from jaxalign.recipes.online import train_online
from jaxalign.recipes.prompts import Prompts
from jaxalign.recipes.run import open_run
from jaxalign.recipes.sampler import TextTask
from jaxalign.recipes.text_models import new_text_model
from jaxalign.rollouts.pairs import sample_pairs, scored_pairs
from tests.checks.close import assert_same
from tests.metric_lines import lines_without_times
from tests.table_policy import START, WORDS, summed, table_logps, texts
from tests.updates import Updates

KEY, ROWS = jax.random.key(0), 16
NAMES = (*ONLINE_LOSSES, "ipo")
OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.05))
PARAMS = START + 0.05 * np.arange(WORDS)
LAYOUTS = ["device", "pmap", "shards", "mesh"]


def online_batch(rows=ROWS, seed=0):
    """Random pairs; every fifth is a tie."""
    rng = np.random.default_rng(seed)
    sides, scores = [texts(rng, rows) for _ in range(2)], rng.normal(size=(2, rows))
    scores[1, ::5] = scores[0, ::5]
    first, second = (
        ScoredResponses(responses=text, scores=score, reference=summed(START, text))
        for text, score in zip(sides, scores, strict=True)
    )
    return OnlineBatch(first=first, second=second, weights=np.ones(rows))


def objective(name, **options):
    """The objective of that loss, or of online DPO with that loss on pairs."""
    loss = (ONLINE_PAIR_LOSSES | ONLINE_LOSSES)[name]
    numbers = {key: options.pop(key) for key in loss.hyperparameters if key in options}
    return objectives.online(table_logps, loss.given(**numbers), **options)


def ranked_rows(batch):
    """The pairs without ties as a file of preferences would have them."""
    first, second = batch.first, batch.second
    keep = first.scores != second.scores
    wins = (first.scores > second.scores)[keep]

    def pick(one, other):
        def choose(a, b):
            a, b = a[keep], b[keep]
            return np.where(wins.reshape(-1, *[1] * (a.ndim - 1)), a, b)

        return jax.tree.map(choose, one, other)

    sides = first.responses, second.responses
    logps = first.reference, second.reference
    return PreferenceBatch(
        chosen=pick(*sides),
        rejected=pick(*sides[::-1]),
        reference=PairLogps(chosen=pick(*logps), rejected=pick(*logps[::-1])),
        weights=np.ones(keep.sum()),
    )


def test_names_agree(capsys):
    from jaxalign.cli import main

    assert get_args(OnlineLossName) == tuple(ONLINE_LOSSES)
    assert get_args(OnlinePairLossName) == tuple(ONLINE_PAIR_LOSSES)
    with pytest.raises(SystemExit):
        main(["online", "--help", "all"])
    shown = "".join(capsys.readouterr().out.replace("│", "").split())
    assert f"online.loss{{{','.join(ONLINE_LOSSES)}}}" in shown
    assert f"online.pair_loss{{{','.join(ONLINE_PAIR_LOSSES)}}}" in shown


@pytest.mark.slow
@pytest.mark.parametrize("name", ONLINE_PAIR_LOSSES)
def test_online_dpo_is_the_loss_on_the_ranked_pairs(x64, name):
    """Value, weight and gradient are those of the same pairs read from a file."""
    batch, params = online_batch(), jnp.asarray(PARAMS)
    grad = functools.partial(jax.value_and_grad, has_aux=True)
    (loss, (weight, metrics)), ours = grad(objective(name))(params, batch, KEY)
    offline = objectives.paired(table_logps, ONLINE_PAIR_LOSSES[name])
    (expected, (pairs, _)), theirs = grad(offline)(params, ranked_rows(batch), KEY)
    np.testing.assert_allclose([loss, weight], [expected, pairs], rtol=1e-12)
    np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)
    assert float(weight) == 12 and np.abs(ours).max() > 1e-5
    tied, real = metrics["scores/tied"]
    assert (float(tied), float(real)) == (4, 16)


def xpo_by_hand(batch, *, beta, alpha):
    """Sum of alpha log pi(y~) - log sigmoid(margin) over the pairs without ties, in float64."""
    total = 0.0
    for row in np.flatnonzero(batch.first.scores != batch.second.scores):
        logps = [summed(PARAMS, s.responses)[row] for s in (batch.first, batch.second)]
        ratios = [
            x - side.reference[row]
            for x, side in zip(logps, (batch.first, batch.second), strict=True)
        ]
        sign = 1 if batch.first.scores[row] > batch.second.scores[row] else -1
        total += alpha * logps[1] + math.log1p(math.exp(-sign * beta * (ratios[0] - ratios[1])))
    return total


def nash_by_hand(batch, *, beta, score_scale):
    """-log pi(y) (P - 1/2 - beta log(pi / pi_ref)), P the logistic of the scores' difference."""
    total = 0.0
    for row, logp in enumerate(summed(PARAMS, batch.first.responses)):
        difference = batch.first.scores[row] - batch.second.scores[row]
        preference = 1 / (1 + math.exp(-score_scale * difference))
        total -= logp * (preference - 0.5 - beta * (logp - batch.first.reference[row]))
    return total


@pytest.mark.slow
def test_xpo_and_nash_md_by_hand(x64):
    batch, params = online_batch(), jnp.asarray(PARAMS)
    loss, _ = objective("xpo", beta=0.3, alpha=0.2)(params, batch, KEY)
    np.testing.assert_allclose(loss, xpo_by_hand(batch, beta=0.3, alpha=0.2), rtol=1e-12)
    loss, (weight, metrics) = objective("nash_md", beta=0.3, score_scale=2.0)(params, batch, KEY)
    expected = nash_by_hand(batch, beta=0.3, score_scale=2.0)
    np.testing.assert_allclose(loss, expected, rtol=1e-12)
    assert float(weight) == ROWS and 0 < metrics["nash/preference"] / ROWS < 1


@pytest.mark.slow
def test_gradients_of_xpo_and_nash_md(x64):
    """d log pi(y) / dz = counts of the words - length softmax(z); Nash-MD's weight is fixed."""
    batch, params = online_batch(), jnp.asarray(PARAMS)

    def gradient(name, **options):
        return jax.grad(lambda p: objective(name, **options)(p, batch, KEY)[0])(params)

    def scores_of(rows):
        words = (rows.tokens[..., None] == np.arange(WORDS)) & rows.response_mask[..., None]
        p = np.exp(PARAMS) / np.exp(PARAMS).sum()
        return words.sum(1) - rows.response_mask.sum(1)[:, None] * p

    untied = batch.first.scores != batch.second.scores
    bonus = gradient("xpo", alpha=0.2) - gradient("xpo", alpha=0.0)
    expected = 0.2 * scores_of(batch.second.responses)[untied].sum(0)
    np.testing.assert_allclose(bonus, expected, rtol=1e-9, atol=1e-12)
    logps = summed(PARAMS, batch.first.responses)
    preferences = 1 / (1 + np.exp(batch.second.scores - batch.first.scores))
    value = preferences - 0.5 - 0.3 * (logps - batch.first.reference)
    expected = -(value[:, None] * scores_of(batch.first.responses)).sum(0)
    np.testing.assert_allclose(gradient("nash_md", beta=0.3), expected, rtol=1e-9)


@pytest.mark.slow
def test_xpo_without_a_bonus_is_online_dpo(x64):
    batch, params = online_batch(), jnp.asarray(PARAMS)
    losses = [objective("xpo", alpha=0.0), objective("online_dpo")]
    (one, ones), (other, others) = (
        jax.value_and_grad(lambda p, f=f: f(p, batch, KEY)[0])(params) for f in losses
    )
    assert float(one) == float(other)
    np.testing.assert_array_equal(ones, others)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["online_dpo", "xpo", "nash_md"])
def test_what_is_frozen_gets_no_gradient(x64, name):
    batch = online_batch()

    def loss(numbers):
        (first, second), (r1, r2) = numbers
        changed = OnlineBatch(
            first=dataclasses.replace(batch.first, scores=first, reference=r1),
            second=dataclasses.replace(batch.second, scores=second, reference=r2),
            weights=batch.weights,
        )
        return objective(name)(jnp.asarray(PARAMS), changed, KEY)[0]

    sides = (batch.first, batch.second)
    scores, references = ([getattr(s, n) for s in sides] for n in ("scores", "reference"))
    grads = jax.grad(loss)((scores, references))
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(grads))


UPDATES = Updates(
    objective=lambda name, axis_name: objective(name),
    params=jnp.asarray(PARAMS, jnp.float32),
    optimizer=OPTIMIZER,
    batches=lambda: dict.fromkeys(NAMES, online_batch(13)),
)
CLOSE = {"rtol": 2e-4, "atol": 2e-6}


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_update_does_not_depend_on_padding_and_devices(layout):
    assert_same(UPDATES.cut(layout), UPDATES.plain, **CLOSE)


@pytest.mark.slow
def test_update_does_not_depend_on_micro_batches():
    assert_same(UPDATES.cut("device", micro_batches=4), UPDATES.plain, **CLOSE)


SCORES = np.array([0.0, 1.0, -0.5, 2.0])
CYCLE = np.array([[0.5, 0.9, 0.2], [0.1, 0.5, 0.7], [0.8, 0.3, 0.5]])  # 0 > 1 > 2 > 0
ORDER = np.array([[0.5, 0.9, 0.6], [0.1, 0.5, 0.8], [0.4, 0.2, 0.5]])  # 0 > 1 > 2, 0 > 2
TAU = 0.4


def geometric(policy, reference, mixture):
    mixed = policy ** (1 - mixture) * reference**mixture
    return mixed / mixed.sum()


def fixed_point(preferences, reference, mixture):
    """pi ~ pi_ref exp(P(. > opponent) / tau), the opponent being pi's mixture with pi_ref.

    At mixture 0 that is the Nash equilibrium of the regularised game: the best reply to itself.
    """
    policy = reference
    for _ in range(2000):
        worth = preferences @ geometric(policy, reference, mixture)
        reply = reference * np.exp((worth - worth.max()) / TAU)
        policy = np.sqrt(policy * reply / reply.sum())
        policy /= policy.sum()
    return policy


def expected_gradient(policy, preferences, reference, mixture):
    """Of the pure loss in the policy's logits, over all pairs: y of the policy, y' its opponent."""
    worth = preferences @ geometric(policy, reference, mixture)

    def loss(logits):
        logps = jax.nn.log_softmax(logits)
        return (policy * nash_md_loss(logps, jnp.log(reference), worth, beta=TAU)).sum()

    return np.asarray(jax.grad(loss)(jnp.log(policy)))


@pytest.mark.slow
@pytest.mark.parametrize("preferences", [CYCLE, ORDER], ids=["cyclic", "transitive"])
def test_the_nash_equilibrium_is_stationary(x64, preferences):
    reference = np.array([0.5, 0.3, 0.2])
    policy = fixed_point(preferences, reference, mixture=0.0)
    # No reply is worth more: the best one has the value tau log sum_y pi_ref exp(P / tau).
    kl = (policy * np.log(policy / reference)).sum()
    best = TAU * np.log((reference * np.exp(preferences @ policy / TAU)).sum())
    np.testing.assert_allclose(policy @ preferences @ policy - TAU * kl, best, rtol=1e-12)
    at_rest = expected_gradient(policy, preferences, reference, 0.0)
    np.testing.assert_allclose(at_rest, 0, atol=1e-12)
    elsewhere = expected_gradient(reference, preferences, reference, 0.0)
    assert np.abs(elsewhere).max() > 0.01
    # Against a mixture the point of rest is another one, between equilibrium and reference.
    mixed = fixed_point(preferences, reference, mixture=0.3)
    np.testing.assert_allclose(expected_gradient(mixed, preferences, reference, 0.3), 0, atol=1e-12)
    assert np.abs(expected_gradient(policy, preferences, reference, 0.3)).max() > 1e-3


@pytest.mark.slow
def test_rock_paper_scissors_rests_at_uniform_against_any_mixture(x64):
    """The symmetric game: uniform is the equilibrium, the reference and every mixture of them."""
    beats = np.array([[0.5, 1.0, 0.0], [0.0, 0.5, 1.0], [1.0, 0.0, 0.5]])
    uniform = np.ones(3) / 3
    for mixture in (0.0, 0.125, 1.0):
        gradient = expected_gradient(uniform, beats, uniform, mixture)
        np.testing.assert_allclose(gradient, 0, atol=1e-12)
    assert np.abs(expected_gradient(np.array([0.5, 0.3, 0.2]), beats, uniform, 0.125)).max() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("mixture", [0.0, 0.3])
def test_the_objective_rests_where_the_theory_says(x64, mixture):
    """All pairs of one-token responses, weighted by their probability, through the objective."""
    reference = np.array([0.4, 0.3, 0.2, 0.1])
    preferences = 1 / (1 + np.exp(-1.5 * (SCORES[:, None] - SCORES[None])))
    policy = fixed_point(preferences, reference, mixture)
    pairs = np.stack(np.meshgrid(np.arange(4), np.arange(4)), -1).reshape(-1, 2)
    shown = np.tile([[True, False]], (16, 1))

    def side(words):
        rows = TokenBatch(
            tokens=np.stack([0 * words, words], 1).astype(np.int32),
            prompt_mask=shown,
            response_mask=~shown,
            index=np.arange(16, dtype=np.int32),
        )
        return ScoredResponses(
            responses=rows, scores=SCORES[words], reference=np.log(reference)[words]
        )

    def gradient(policy):
        opponent = geometric(policy, reference, mixture)
        weights = policy[pairs[:, 0]] * opponent[pairs[:, 1]]
        batch = OnlineBatch(first=side(pairs[:, 0]), second=side(pairs[:, 1]), weights=weights)
        loss = objectives.online(table_logps, NASH_MD.given(beta=TAU), score_scale=1.5)
        return np.asarray(jax.grad(lambda p: loss(p, batch, KEY)[0])(jnp.log(policy)))

    np.testing.assert_allclose(gradient(policy), 0, atol=1e-12)
    assert np.abs(gradient(reference)).max() > 0.01


@functools.cache
def tiny_policy():
    tokenizer = train_bpe(["the film is good"], 262)
    config = ModelConfig(width=16, layers=1, heads=2, dropout=0.0)
    return new_text_model(config, tokenizer, jax.random.key(0), max_length=12)


class LowIds:
    """A reward model that likes half of the vocabulary: its score is the share of ids below 131."""

    def apply(self, variables, tokens, mask, keys=None):
        hits = (tokens < 131) & mask

        class Outputs:
            scores = hits.sum(axis=1) / jnp.maximum(mask.sum(axis=1), 1)

        return Outputs


LIKES_LOW_IDS = type("Reward", (), {"model": LowIds(), "params": jnp.zeros(())})
DECODING = {"temperature": 0.7, "max_new_tokens": 4}


@pytest.mark.slow
@pytest.mark.parametrize("opponent", [0.0, 0.3])
def test_the_pass_judges_what_each_side_drew(opponent):
    """Another policy than the reference; scores, penalties and log-probabilities recomputed."""
    from jaxalign.models.functions import response_logps_of
    from jaxalign.sampling import sample, sample_mixture

    model, eos = tiny_policy(), 5
    params = jax.tree.map(lambda x: 3 * x, model.params)
    prompts = np.array([[1, 7], [1, 9], [1, 0], [0, 0]], np.int32)
    asked = TokenBatch(
        tokens=prompts,
        prompt_mask=prompts > 0,
        response_mask=prompts < 0,
        index=np.arange(4, dtype=np.int32),
    )
    collect = sample_pairs(model.model, LowIds(), opponent=opponent, eos_id=eos, **DECODING)
    batch, measured = jax.jit(collect)((params, model.params, jnp.zeros(()), KEY), asked)
    batch = scored_pairs(batch, missing_eos=0.5, eos_id=eos)
    assert batch.weights.tolist() == [1, 1, 1, 0]
    drawn = sample(model.model, params, asked, jax.random.fold_in(KEY, 0), eos_id=eos, **DECODING)
    against = sample_mixture(
        (model.model, model.model), (params, model.params), asked, jax.random.fold_in(KEY, 1),
        mixture=opponent, eos_id=eos, **DECODING,
    )  # fmt: skip
    logps = response_logps_of(model.model, temperature=0.7)
    for side, samples in ((batch.first, drawn), (batch.second, against)):
        rows = samples.batch
        np.testing.assert_array_equal(side.responses.tokens, rows.tokens)
        np.testing.assert_allclose(side.reference, logps(model.params, rows), atol=1e-5)
        ended = (np.asarray(rows.tokens) == eos) & np.asarray(rows.response_mask)
        expected = LowIds().apply(None, rows.tokens, rows.mask).scores - 0.5 * ~ended.any(1)
        np.testing.assert_allclose(side.scores[:3], expected[:3], atol=1e-6)
    assert np.any(batch.first.responses.tokens != batch.second.responses.tokens)
    kl = logps(params, drawn.batch) - batch.first.reference
    np.testing.assert_allclose(measured["kl/reference"], kl, atol=1e-4)


def train(directory, loss, layout="device", steps=24, **settings):
    fit = FitConfig(
        steps=steps,
        batch_size=32,
        log_every=1,
        save_every=2,
        optimizer=OptimizerConfig(learning_rate=3e-2, schedule="constant", warmup_steps=0),
    )
    settings = OnlineSettings(loss=loss, fit=fit, missing_eos_penalty=0.0, **settings)
    place = PlaceConfig(layout=layout)
    prompts = Prompts(ids=[[1]])
    task = TextTask(prompts=prompts, reward=LIKES_LOW_IDS, temperature=1.0, max_new_tokens=5)
    with open_run(directory, ModelConfig(), place, 0) as run:
        train_online(run, "online", tiny_policy(), task, settings=settings)
    hidden = ("time", "stage")
    return [
        {name: value for name, value in line.items() if name not in hidden}
        for line in lines_without_times(directory)
    ]


NASH = {"beta": 0.0, "score_scale": 20.0}


@pytest.fixture(scope="module")
def nash_run(tmp_path_factory):
    """Some steps of Nash-MD on one device."""
    return train(tmp_path_factory.mktemp("nash"), "nash_md", **NASH)


def check_learning(lines):
    scores = [line["scores/mean"] for line in lines]
    # 32 shares of 6 tokens, each 1/2 likely: the mean's standard deviation is below 0.04
    assert 0.35 < scores[0] < 0.65 and np.mean(scores[-3:]) > scores[0] + 0.2
    assert abs(lines[0]["kl/reference"]) < 1e-4 and lines[-1]["kl/reference"] > 0.5


@pytest.mark.slow
def test_nash_md_raises_the_reward(nash_run):
    check_learning(nash_run)


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "settings"), [("online_dpo", {}), ("xpo", {"alpha": 1e-3})])
def test_training_raises_the_reward(tmp_path, loss, settings):
    lines = train(tmp_path, loss, **settings)
    check_learning(lines)
    opponents = np.mean([line["scores/opponent"] for line in lines[-3:]])
    # XPO's opponent is the reference to the end
    assert abs(opponents - (0.5 if loss == "xpo" else lines[-1]["scores/mean"])) < 0.15


@pytest.mark.slow
def test_a_run_that_was_cut_goes_on_to_the_same_bits(tmp_path, nash_run):
    train(tmp_path, "nash_md", steps=2, **NASH)
    assert train(tmp_path, "nash_md", steps=4, **NASH) == nash_run[:4]


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS[1:])
def test_layouts_sample_and_learn_the_same(tmp_path, nash_run, layout):
    for line, other in zip(
        train(tmp_path, "nash_md", layout, steps=2, **NASH), nash_run, strict=False
    ):
        assert line == pytest.approx(other, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": 1.0}, "loss dpo takes no alpha; it takes beta"),
        ({"loss": "xpo", "pair_loss": "ipo"}, "loss xpo takes no pair_loss"),
        ({"loss": "nash_md", "alpha": 1.0}, "loss nash_md takes no alpha"),
        ({"mixture": 0.5}, "loss online_dpo takes no mixture"),
        ({"loss": "xpo", "score_scale": 2.0}, "loss xpo takes no score_scale"),
        ({"loss": "nash_md", "mixture": 1.5}, r"mixture is 1.5; it must lie in \[0, 1\]"),
        ({"loss": "nash_md", "beta": -1.0}, "beta is -1.0; it must not be negative"),
        ({"loss": "nash_md", "score_scale": 0.0}, "score_scale is 0.0; it must be above 0"),
        ({"loss": "xpo", "alpha": -1.0}, "alpha is -1.0; it must not be negative"),
        ({"pair_loss": "ipo", "beta": 0.0}, "beta is 0.0; it must be above 0"),
        ({"missing_eos_penalty": -1.0}, "it must not be negative"),
    ],
)
def test_what_a_loss_does_not_take_is_refused(settings, message):
    with pytest.raises(UserError, match=message):
        OnlineSettings(**settings)
