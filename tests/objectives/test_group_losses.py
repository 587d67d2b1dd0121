"""Every critic-free policy gradient by name: the paper's loop, the policy gradient on policy, the
same update however the rows are cut, and rewards that rise.
"""

import dataclasses
import inspect
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxalign import losses
from jaxalign.advantages import ADVANTAGES, overlong_penalties
from jaxalign.batches.experience import ResponseBatch
from jaxalign.batches.tokens import TokenBatch
from jaxalign.config.checks import hints_of
from jaxalign.config.grpo import (
    AdvantagesName,
    AggregationName,
    GroupLossName,
    GRPOSettings,
)
from jaxalign.config.loop import OptimizerConfig
from jaxalign.config.model import ModelConfig
from jaxalign.config.names import hyperparameter_names
from jaxalign.config.place import PlaceConfig
from jaxalign.data.batching import prompt_batch
from jaxalign.data.tokenizer_training import train_bpe
from jaxalign.errors import UserError
from jaxalign.kl import CORRECTED, K1
from jaxalign.losses import GROUP_LOSSES
from jaxalign.losses.aggregation import AGGREGATIONS, SEQUENCE_MEAN
from jaxalign.losses.group_methods import PARTS, with_parts
from jaxalign.models.functions import text_decisions
from jaxalign.objectives import group_policy_gradient
from jaxalign.recipes.grpo import train_grpo
from jaxalign.recipes.prompts import Prompts
from jaxalign.recipes.run import open_run
from jaxalign.recipes.sampler import TextTask
from jaxalign.recipes.text_models import new_text_model
from jaxalign.rollouts.groups import GroupSamples, response_batch, sample_groups
from jaxalign.rollouts.text import ScoredSamples
from jaxalign.sampling import Samples
from jaxalign.train.metrics import read_metrics
from tests.cases.case import case_of
from tests.checks.close import assert_same
from tests.oracles import group_losses as oracle
from tests.updates import Updates

KEY, ROWS, LENGTH, WORDS = jax.random.key(0), 16, 5, 7
NAMES = tuple(GROUP_LOSSES)
METHOD_FIELDS = {*PARTS, *hyperparameter_names(GROUP_LOSSES.values())}
START = np.random.default_rng(9).normal(size=WORDS).astype(np.float32)
PARAMS = START + 0.1 * np.linspace(-1, 1, WORDS, dtype=np.float32)
OPTIMIZER = optax.sgd(0.05)


def table_decisions(params, rows, keys):
    """A context-free policy: log-probabilities of a table of logits, and their entropy."""
    logps = jax.nn.log_softmax(params)
    entropy = -jnp.sum(jnp.exp(logps) * logps)
    return logps[rows.tokens], jnp.broadcast_to(entropy, rows.tokens.shape)


def summed_to_one(table):
    return table - np.log(np.exp(table).sum())


def responses(name, rows=ROWS, seed=0, weighted=True):
    """Sampled by another policy; every fifth row has nothing to learn from."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, LENGTH + 1, rows)
    real = np.arange(LENGTH) < lengths[:, None]
    mask = real & (np.arange(LENGTH) > 0)
    tokens = rng.integers(0, WORDS, (rows, LENGTH)).astype(np.int32)
    inputs = TokenBatch(
        tokens=tokens,
        prompt_mask=real & ~mask,
        response_mask=mask,
        index=np.arange(rows, dtype=np.int32),
    )
    per_token = GROUP_LOSSES[name].per_token
    advantages = rng.normal(size=(rows, LENGTH) if per_token else rows).astype(np.float32)
    drawn = rng.choice([0.0, 0.5, 1.5], (rows, LENGTH)).astype(np.float32)
    drawn = drawn if not GROUP_LOSSES[name].surrogate.whole else drawn[:, :1]
    return ResponseBatch(
        inputs=inputs,
        mask=mask & (np.arange(rows) % 5 != 4)[:, None],
        behaviour_logps=summed_to_one(START).astype(np.float32)[tokens],
        reference_logps=np.full((rows, LENGTH), -np.log(WORDS), np.float32),
        advantages=advantages,
        weights=np.broadcast_to(drawn if weighted else 1.0, (rows, LENGTH)).astype(np.float32),
        index=inputs.index,
    )


def method_of(name, **given):
    """A method with parts in place of its own, by their names on the command line."""
    return GRPOSettings(loss=name, **given).method


def objective(name, **given):
    return group_policy_gradient(table_decisions, method_of(name, **given), length=LENGTH)


def by_loop(name, batch):
    """The oracle on a batch: loss sum, divisor, gradient by the table of logits."""
    table = PARAMS.astype(np.float64)
    ours = summed_to_one(table)[batch.inputs.tokens]
    advantages = np.broadcast_to(
        batch.advantages if batch.advantages.ndim == 2 else batch.advantages[:, None], ours.shape
    )
    columns = (ours, batch.behaviour_logps, batch.reference_logps, advantages, batch.weights)
    rows = [
        tuple(column[i][batch.mask[i]].astype(float).tolist() for column in columns)
        for i in range(len(ours))
    ]
    method = oracle.METHODS.get(name) or by_example(GROUP_LOSSES[name])
    total, divisor, slopes = oracle.aggregated(method, rows, length=LENGTH)
    gradient, probabilities = np.zeros(WORDS), np.exp(summed_to_one(table))
    for i, row in enumerate(slopes):
        for token, slope in zip(batch.inputs.tokens[i][batch.mask[i]], row, strict=True):
            gradient += slope * ((np.arange(WORDS) == token) - probabilities)
    return total, divisor, gradient


def by_example(method):
    """The same of a new method, by the oracle in the example of its surrogate, without slopes."""
    assert method.surrogate.losses is method.formula, f"{method.name}: give METHODS its loop"

    def response(policy, behaviour, reference, advantages, weights):
        row = {"logps": policy, "behaviour_logps": behaviour, "advantages": advantages}
        given = {name: np.array([values]) for name, values in row.items()}
        given["mask"] = np.ones((1, len(policy)), bool)
        if method.surrogate.one_advantage:
            given["advantages"] = given["advantages"][:, 0]
        names = [name for name in inspect.signature(method.formula).parameters if name in given]
        example = case_of(method.formula)
        found = example.expected({n: given[n] for n in names}, **method.hyperparameters)[0]
        return float((np.broadcast_to(found, len(policy)) * weights).sum()), [0.0] * len(policy)

    coefficient = method.loss_kl_coef
    charged = oracle.with_k3(response, coefficient) if coefficient else response
    return charged, method.aggregation.name


def test_names_agree(capsys):
    from jaxalign.cli import main

    assert get_args(GroupLossName) == NAMES
    assert set(oracle.METHODS) <= set(NAMES)
    assert get_args(AdvantagesName) == tuple(ADVANTAGES)
    assert get_args(AggregationName) == tuple(AGGREGATIONS)
    assert hints_of(GRPOSettings).keys() >= METHOD_FIELDS
    with pytest.raises(SystemExit):
        main(["grpo", "--help", "all"])
    shown = "".join(capsys.readouterr().out.replace("│", "").split())
    assert f"grpo.loss{{{','.join(NAMES)}}}" in shown


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_objective_is_the_papers_loop(name):
    batch = responses(name)
    assert (batch.mask.sum(1) == 0).any() and len(set(batch.mask.sum(1))) > 3
    total, divisor, gradient = by_loop(name, batch)
    loss_fn = objective(name)
    (loss, (weight, metrics)), slopes = jax.value_and_grad(loss_fn, has_aux=True)(
        jnp.asarray(PARAMS), batch, KEY
    )
    np.testing.assert_allclose(loss, total, rtol=2e-5)
    assert float(weight) == divisor
    if name in oracle.METHODS:
        np.testing.assert_allclose(slopes, gradient, rtol=1e-4, atol=1e-5 * np.abs(gradient).max())
    tokens = float(batch.mask.sum())
    assert all(float(metrics[key][1]) == tokens for key in metrics if key != "policy/loss")
    ratios = np.exp(summed_to_one(PARAMS)[batch.inputs.tokens] - batch.behaviour_logps)
    np.testing.assert_allclose(metrics["policy/ratio"][0], ratios[batch.mask].sum(), rtol=1e-5)


def test_grpo_loss_is_the_function_of_that_name():
    batch = responses("grpo", weighted=False)
    logps, _ = table_decisions(PARAMS, batch.inputs, None)
    kl = np.exp(batch.reference_logps - logps) - (batch.reference_logps - logps) - 1
    decision = (logps, batch.behaviour_logps, batch.advantages, kl)
    tokens = losses.grpo.grpo_loss(*decision, clip_range=0.2, kl_coef=0.04)
    means = [
        row[m].mean() for row, m in zip(np.asarray(tokens), batch.mask, strict=True) if m.any()
    ]
    np.testing.assert_allclose(objective("grpo")(PARAMS, batch, KEY)[0], sum(means), rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_on_policy_it_is_the_policy_gradient(name):
    """d loss / d log pi(y_t) = -A_t times the token's weight, at the policy that sampled."""
    batch = responses(name, weighted=False)
    method = with_parts(GROUP_LOSSES[name], kl_coef=0.0)
    table_model = group_policy_gradient(lambda p, rows, keys: (p, p), method, length=LENGTH)
    logps = jnp.asarray(batch.behaviour_logps)
    slopes, (_, metrics) = jax.grad(table_model, has_aux=True)(logps, batch, KEY)
    counts = np.maximum(batch.mask.sum(1, keepdims=True), 1)
    # the one action of rloo is the response: the sum over its tokens, not their mean
    mean = method.aggregation is SEQUENCE_MEAN and name != "rloo"
    advantages = batch.advantages.reshape(ROWS, -1)
    expected = -advantages * batch.mask / (counts if mean else 1)
    np.testing.assert_allclose(slopes, expected, rtol=1e-5, atol=1e-7)
    assert float(metrics["policy/clip_fraction"][0] if method.surrogate.clipped else 0.0) == 0
    np.testing.assert_allclose(metrics["policy/ratio"][0], batch.mask.sum(), rtol=1e-6)


@pytest.mark.parametrize("name", [n for n in NAMES if GROUP_LOSSES[n].surrogate.clipped])
def test_clip_fraction_is_where_the_slope_vanishes(name):
    batch = responses(name, weighted=False)
    method = with_parts(GROUP_LOSSES[name], kl_coef=0.0)
    table_model = group_policy_gradient(lambda p, rows, keys: (p, p), method, length=LENGTH)
    drift = np.random.default_rng(1).choice([-9.0, -2e-4, 2e-4, 9.0], batch.mask.shape)
    one_ratio = method.surrogate.one_ratio and name != "gmpo"  # which clips each token's
    drift = drift[:, :1] + 0 * drift if one_ratio else drift
    logps = jnp.asarray(batch.behaviour_logps + drift.astype(np.float32))
    slopes, (_, metrics) = jax.grad(table_model, has_aux=True)(logps, batch, KEY)
    clipped = float(metrics["policy/clip_fraction"][0])
    if name == "cispo":  # its weights are capped, above only, and no slope vanishes
        assert clipped == (np.exp(drift) > 5)[batch.mask].sum() > 0
        assert np.all(np.asarray(slopes)[batch.mask] != 0)
    else:
        assert 0 < clipped == (np.asarray(slopes)[batch.mask] == 0).sum() < batch.mask.sum()


UPDATES = Updates(
    objective=lambda name, axis_name: objective(name, entropy_coef=0.01),
    params=jnp.asarray(PARAMS),
    optimizer=OPTIMIZER,
    batches=lambda: {name: responses(name, 13) for name in NAMES},
)
CLOSE = {"rtol": 2e-4, "atol": 2e-5}


@pytest.mark.compiled
@pytest.mark.slow
@pytest.mark.parametrize(
    ("layout", "micro_batches"),
    [("device", 4), ("pmap", 1), ("shards", 2), ("mesh", 1)],
)
def test_update_does_not_depend_on_the_cut(layout, micro_batches):
    assert_same(UPDATES.cut(layout, micro_batches), UPDATES.plain, **CLOSE)


def samples(scores, ended=(True, True, True, False), drift=0.0):
    """Two prompts with two responses each, of 1, 2, 3 and 4 tokens; EOS is token 2."""
    response = np.arange(6) < np.array([2, 3, 4, 5])[:, None]
    response &= np.arange(6) > 0
    tokens = np.where(response, 5, 0)
    for row, end in enumerate(ended):
        tokens[row, row + 1] = 2 if end else 5
    rows = TokenBatch(
        tokens=jnp.asarray(tokens, jnp.int32),
        prompt_mask=jnp.asarray(np.arange(6)[None] + np.zeros((4, 1)) < 1),
        response_mask=jnp.asarray(response),
        index=jnp.arange(4, dtype=jnp.int32),
    )
    ours = jnp.where(response, -1.0, 0.0)
    scored = ScoredSamples(
        samples=Samples(batch=rows, logps=ours - drift),
        scores=jnp.asarray(scores, jnp.float32),
        values=None,
        reference_logps=jnp.where(response, -1.5, 0.0),
    )
    entropies = jnp.asarray(np.arange(24.0).reshape(4, 6))
    return GroupSamples(scored=scored, behaviour_logps=ours, entropies=entropies)


def compared(
    name, scores=(1.0, 3.0, 5.0, 9.0), drift=0.0, ended=(True, True, True, False), **given
):
    method = method_of(name, **given)
    found = samples(scores, ended, drift)
    return response_batch(found, method, group_size=2, eos_id=2, longest=4)


@pytest.mark.parametrize(
    ("advantages", "expected"),
    [
        ("group", [-(0.5**0.5), 0.5**0.5, -(0.5**0.5), 0.5**0.5]),
        ("centred", [-1, 1, -2, 2]),
        # deviations from the mean 4.5: 3.5, 1.5, 0.5, 4.5; squares 12.25 + 2.25 + 0.25 + 20.25 = 35
        ("batch", np.array([-1, 1, -2, 2]) / (35 / 3) ** 0.5),
        ("leave_one_out", [-2, 2, -4, 4]),
        ("best_of_group", [0, 2, 0, 4]),
        # baselines (1 * 1 + 2 * 3) / 3 and (3 * 5 + 4 * 9) / 7
        ("length_weighted", [1 - 7 / 3, 3 - 7 / 3, 5 - 51 / 7, 9 - 51 / 7]),
    ],
)
def test_advantages_by_hand(advantages, expected):
    batch, metrics = compared("bnpo", advantages=advantages)
    np.testing.assert_allclose(batch.advantages, expected, rtol=1e-6, atol=1e-6)
    assert float(metrics["scores/mean"]) == 4.5
    assert float(metrics["scores/std_within_groups"]) == 1.5  # of 1 and 2
    assert float(metrics["response/length"]) == 2.5
    assert float(metrics["response/ended"]) == 0.75
    np.testing.assert_allclose(metrics["kl/reference"], 0.5 * 2.5, rtol=1e-6)


def test_kl_in_the_reward_by_hand():
    """Half a nat a token at coefficient 2: a response pays 1 for every token."""
    batch, _ = compared("rloo", kl_coef=2.0)
    # 1 - 1, 3 - 2, 5 - 3, 9 - 4
    np.testing.assert_allclose(batch.advantages, [-1, 1, -3, 3], atol=1e-6)
    batch, _ = compared("reinforce_plus_plus", kl_coef=2.0, gamma=0.5)
    # rewards of the second response: -1, 3 - 1; returns -1 + 0.5 * 2 = 0 and 2
    returns = np.array([0, 0, 2, -1 + 0.5 * (-1 + 0.5 * 4), -1 + 2, 4, 0.0, 2.0, 3.0 * 0, 8])
    returns[6:] = [-1 + 0.5 * (-1 + 0.5 * (-1 + 4)), -1 + 0.5 * (-1 + 4), -1 + 4, 8]
    expected = (returns - returns.mean()) / returns.std()
    np.testing.assert_allclose(batch.advantages[batch.mask], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["grpo", "dapo", "rloo", "dr_grpo"])
def test_groups_of_equal_sums_are_equal(name):
    """0.1 + 0.6 and 0.7 in float32; and a score of 0.3 that costs 0.3, beside one of 0."""
    scores = np.array([0.1, 0.7, 0.3, 0.0], np.float32)
    scores[0] += np.float32(0.6)
    batch, metrics = compared(
        name, scores, ended=(True, True, False, True), missing_eos_penalty=0.3,
        kl_coef=0.0, drop_equal_groups=True, mask_truncated=False, overlong_share=0.0,
    )  # fmt: skip
    assert not batch.advantages.any() and not batch.mask.any()
    assert float(metrics["scores/equal_groups"]) == 1
    batch, metrics = compared(name, (1.0, 1.0001, 1e-3, 2e-3), kl_coef=0.0, drop_equal_groups=True)
    assert np.all(np.asarray(batch.advantages) != 0)
    assert float(metrics["scores/equal_groups"]) == 0


def test_what_a_response_pays_for():
    """No end costs 4; the longest is 4 tokens, the last two of them cost a half each."""
    batch, _ = compared("dr_grpo", missing_eos_penalty=4.0, overlong_share=0.5)
    # 1, 3, 5 - 0.5, 9 - 4 - 1
    np.testing.assert_allclose(batch.advantages, [-1, 1, 0.25, -0.25], atol=1e-6)
    penalties = overlong_penalties(jnp.array([1, 15, 16, 18, 20, 25]), longest=20, cache=4)
    np.testing.assert_allclose(penalties, [0, 0, 0, -0.5, -1, -1])


def test_weights_by_hand():
    """The trainer finds a token e^0.5 times, a response e^(n/2) times likelier than the sampler."""
    drift, lengths = 0.5, np.array([1, 2, 3, 4])
    batch, metrics = compared("bnpo", drift=drift, importance_cap=3.0)
    real = np.asarray(batch.mask)
    np.testing.assert_allclose(batch.weights[real], np.exp(0.5), rtol=1e-6)
    np.testing.assert_allclose(metrics["ratio/mean"], np.exp(0.5), rtol=1e-6)
    whole = {"importance_cap": 3.0, "importance_level": "sequence"}
    batch, metrics = compared("gmpo", drift=drift, **whole)
    np.testing.assert_allclose(batch.weights[:, 0], np.minimum(np.exp(lengths / 2), 3), rtol=1e-6)
    np.testing.assert_allclose(metrics["ratio/max"], np.exp(2), rtol=1e-6)
    assert float(metrics["ratio/capped_max"]) == 3 and float(metrics["ratio/capped_share"]) == 0.5
    batch, _ = compared("gmpo", drift=drift, importance_mode="mask", **whole)
    np.testing.assert_allclose(batch.weights[:, 0], [np.exp(0.5), np.exp(1), 0, 0], rtol=1e-6)
    batch, _ = compared("bnpo", top_entropy=0.3)  # of ten tokens those of the last row, 19 to 22
    assert batch.weights[real].tolist() == [0] * 7 + [1] * 3 and batch.mask.sum() == 10


def test_left_out_responses_leave_loss_and_divisor():
    batch, metrics = compared("dapo", scores=(2.0, 2.0, 5.0, 9.0))
    assert np.asarray(batch.mask).any(1).tolist() == [False, False, True, False]
    assert float(metrics["scores/equal_groups"]) == 0.5
    assert float(metrics["response/trained"]) == 0.25
    for aggregation in AGGREGATIONS:
        loss_fn = objective("bnpo", kl_coef=0.1, entropy_coef=0.1, aggregation=aggregation)
        whole = responses("bnpo")
        kept = jax.tree.map(lambda leaf: leaf[np.arange(ROWS) % 5 != 4], whole)
        assert_same(loss_fn(PARAMS, whole, KEY), loss_fn(PARAMS, kept, KEY), **CLOSE)


class LowIds:
    """A reward model that likes half of the vocabulary: its score is the share of ids below 135."""

    def apply(self, variables, tokens, mask):
        hits = (tokens < 135) & mask

        class Outputs:
            scores = hits.sum(axis=1) / jnp.maximum(mask.sum(axis=1), 1)

        return Outputs


LIKES_LOW_IDS = type("Reward", (), {"model": LowIds(), "params": jnp.zeros(())})


@pytest.fixture(scope="module")
def policy():
    tokenizer = train_bpe(["the film is good"], 270)
    config = ModelConfig(width=16, layers=1, heads=2, dropout=0.0)
    return new_text_model(config, tokenizer, jax.random.key(0), max_length=12)


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.3, 0.7, 1.0, 1.5])
def test_ratios_are_1_before_the_first_update(policy, temperature):
    model, prompts = policy.model, prompt_batch([[1]] * 16, pad_id=0)
    params = jax.tree.map(lambda leaf: 2 * leaf, policy.params)  # far from uniform
    sampling = {"max_new_tokens": 6, "eos_id": policy.tokenizer.eos_id}
    collect = sample_groups(model, model, LowIds(), temperature=temperature, **sampling)
    method = GROUP_LOSSES["grpo"]

    @jax.jit
    def first_metrics(params):
        drawn = collect((params, params, LIKES_LOW_IDS.params, KEY), prompts)
        groups = {"group_size": 4, "eos_id": sampling["eos_id"], "longest": 6}
        batch, of_round = response_batch(drawn, method, **groups)
        found = [of_round]
        for other in (temperature, 2 * temperature):
            decisions = text_decisions(model, temperature=other)
            _, (_, sums) = group_policy_gradient(decisions, method, length=6)(params, batch, KEY)
            found.append({key: x[0] / x[1] for key, x in sums.items() if key != "policy/loss"})
        return found

    of_round, now, wrong = jax.device_get(first_metrics(params))
    np.testing.assert_allclose(of_round["ratio/mean"], 1, atol=1e-5)
    assert abs(of_round["kl/reference"]) < 1e-5
    assert now["policy/clip_fraction"] == 0 and abs(now["policy/ratio"] - 1) < 1e-5
    assert now["policy/approx_kl"] < 1e-9
    assert wrong["policy/clip_fraction"] > 0 and wrong["policy/approx_kl"] > 1e-3


@pytest.mark.slow
def test_it_learns_to_write_what_is_rewarded(policy, tmp_path):
    prompts = Prompts(ids=[[1]])
    task = TextTask(prompts=prompts, reward=LIKES_LOW_IDS, temperature=1.0, max_new_tokens=6)
    settings = GRPOSettings(
        iterations=12,
        prompts=8,
        group_size=8,
        minibatches=4,
        kl_coef=0.001,
        optimizer=OptimizerConfig(learning_rate=1e-2, schedule="constant", warmup_steps=0),
    )
    with open_run(tmp_path, settings, PlaceConfig(layout="device"), 0) as run:
        train_grpo(run, "grpo", policy, task, settings=settings)
    lines = read_metrics(tmp_path)
    scores, kls = ([line[key] for line in lines] for key in ("scores/mean", "kl/reference"))
    assert 0.4 < scores[0] < 0.65 and scores[-1] > 0.85
    assert abs(kls[0]) < 1e-5 and kls[-1] > 0.5


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kl_estimator": "k1"}, "k1 in the loss teaches nothing, its expected gradient is 0"),
        ({"kl_in": "reward", "kl_estimator": "corrected"}, "a reward has none"),
        ({"loss": "dapo", "kl_estimator": "k2"}, "kl_coef is 0: leave kl_estimator out"),
        ({"loss": "dapo", "kl_in": "reward"}, "kl_coef is 0: leave kl_in out"),
        ({"loss": "sapo", "clip_range": (0.2, 0.2)}, "sapo takes no clip_range; it takes positive"),
        ({"loss": "reinforce", "dual_clip": 3.0}, "reinforce takes no dual_clip; it takes none"),
        ({"loss": "cispo", "dual_clip": 3.0}, "cispo takes no dual_clip"),
        ({"dual_clip": 1.1}, "dual_clip is 1.1; it must be above 1"),
        ({"clip_range": (0.0, 0.2)}, "both must be above 0"),
        ({"gamma": 0.9}, "advantages group have no discount: leave gamma out"),
        ({"loss": "gspo", "advantages": "reinforce_plus_plus"}, "takes one advantage a response"),
        ({"loss": "rloo", "aggregation": "token_mean"}, "its only aggregation is sequence_mean"),
        ({"loss": "gmpo", "top_entropy": 0.2}, "leave top_entropy out"),
        ({"loss": "gmpo", "importance_cap": 2.0}, "set importance_level to sequence"),
        ({"importance_mode": "mask"}, "importance_cap is not set: leave importance_mode out"),
        ({"loss": "reinforce_plus_plus", "drop_equal_groups": True}, "leave drop_equal_groups out"),
        (
            {"loss": "reinforce", "update_epochs": 2},
            "set grpo.update_epochs and grpo.minibatches to 1",
        ),
        ({"group_size": 1}, "set grpo.group_size to at least 2"),
        ({"minibatches": 3}, "32 x group_size 8 is not a multiple of minibatches 3"),
        ({"top_entropy": 1.5}, "top_entropy is 1.5"),
        ({"importance_cap": 0.0}, "importance_cap is 0.0; it must be above 0"),
        ({"kl_coef": -1.0}, "kl_coef is -1.0; it must not be negative"),
        ({"overlong_share": 2.0}, r"overlong_share is 2.0; it must lie in \[0, 1\]"),
        ({"loss": "sapo", "negative_temperature": 0.0}, "it must be above 0"),
    ],
)
def test_what_a_method_has_no_use_for_is_refused(given, message):
    with pytest.raises(UserError, match=message):
        GRPOSettings(**given)


def test_every_option_changes_the_batch_or_the_loss():
    """No field of the method is accepted and ignored."""
    changes = {
        "advantages": "centred",
        "aggregation": "sequence_sum",
        "clip_range": (0.01, 0.02),
        "kl_coef": 0.5,
        "kl_in": "reward",
        "kl_estimator": "k2",
        "entropy_coef": 0.1,
        "top_entropy": 0.3,
        "mask_truncated": True,
        "drop_equal_groups": True,
        "overlong_share": 0.5,
        "missing_eos_penalty": 1.0,
        "importance_cap": 1.1,
    }
    own = {**changes, "gamma": 0.5, "dual_clip": 1.3}
    of_others = {"positive_temperature", "negative_temperature", "positive", "negative"}
    levels = {"importance_mode", "importance_level"}
    new = METHOD_FIELDS - set(own) - of_others - levels

    def loss(name="grpo", favour=0.0, **given):
        # not "group": two responses standardised are -1 and 1 over root 2 whatever they are worth
        given = {"advantages": "leave_one_out" if name == "grpo" else None} | given
        batch, _ = compared(name, scores=(2.0, 2.0, 5.0, 9.0), drift=0.2, **given)
        table = jnp.arange(WORDS) * 0.2 + favour * (jnp.arange(WORDS) == 5)
        return float(objective(name, **given)(table, batch, KEY)[0])

    for key, value in changes.items():
        assert loss(**{key: value}) != loss(), key
    assert loss(dual_clip=1.3, favour=3.0) != loss(favour=3.0)  # most tokens are 5: ratio 2
    cap = {"importance_cap": 1.1}
    assert loss(importance_mode="mask", **cap) != loss(**cap)
    assert loss(importance_level="sequence", importance_cap=1.6) != loss(importance_cap=1.6)
    assert loss("reinforce_plus_plus", gamma=0.5) != loss("reinforce_plus_plus")
    assert loss("sapo", positive_temperature=2.0) != loss("sapo")
    assert loss("sapo", negative_temperature=2.0) != loss("sapo")
    assert loss("vespo", positive=(1.0, 1.0)) != loss("vespo")
    assert loss("vespo", negative=(1.0, 1.0)) != loss("vespo")
    for key in new:
        for name, method in GROUP_LOSSES.items():
            if key in (numbers := method.hyperparameters):
                other = jax.tree.map(lambda number: 0.7 * number + 0.013, numbers[key])
                assert loss(name, favour=3.0, **{key: other}) != loss(name, favour=3.0), key


def test_the_defaults_of_the_methods_are_their_own():
    assert GRPOSettings(loss="dapo").method == dataclasses.replace(GROUP_LOSSES["dapo"])
    assert with_parts(GROUP_LOSSES["grpo"], kl_in="reward").kl_estimator is K1
    with pytest.raises(UserError, match="advantages is 'best'; it must be group, batch"):
        GRPOSettings(advantages="best")
    with pytest.raises(UserError, match="no kl_in 'both'; there are loss, reward"):
        with_parts(GROUP_LOSSES["grpo"], kl_in="both")


def test_a_declaration_whose_kl_would_be_left_out_is_refused():
    """From Python too, where no configuration has chosen the parts."""
    with pytest.raises(UserError, match="k1 in the loss teaches nothing"):
        dataclasses.replace(GROUP_LOSSES["grpo"], kl_estimator=K1)
    with pytest.raises(UserError, match="corrected is about gradients and a reward has none"):
        dataclasses.replace(GROUP_LOSSES["rloo"], kl_estimator=CORRECTED)
