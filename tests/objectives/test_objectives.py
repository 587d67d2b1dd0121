"""Objectives: sums and weights against formulas written out in NumPy, and the DPO-PPO theorem's
pieces.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxalign import objectives
from jaxalign.batches.experience import Experience
from jaxalign.batches.preferences import ComparisonBatch, PairLogps, PreferenceBatch
from jaxalign.batches.tokens import TokenBatch
from jaxalign.losses import BRADLEY_TERRY, DPO, ROBUST

KEY = jax.random.key(0)


def token_batch(rng, rows=4, length=5):
    lengths = rng.integers(2, length + 1, rows)
    real = np.arange(length) < lengths[:, None]
    prompt = real & (np.arange(length) < 1)
    return TokenBatch(
        tokens=rng.integers(0, 7, (rows, length)).astype(np.int32),
        prompt_mask=prompt,
        response_mask=real & ~prompt,
        index=np.arange(rows, dtype=np.int32),
    )


def table_logps(params, batch, keys):
    """A context-free policy: log-probabilities of a table of logits."""
    return jax.nn.log_softmax(params)[batch.tokens]


def log_softmax(x):
    return x - np.log(np.exp(x).sum())


def test_sft_is_the_summed_cross_entropy_of_response_tokens():
    rng = np.random.default_rng(0)
    batch, table = token_batch(rng), rng.normal(size=7).astype(np.float32)
    loss, (weight, _) = objectives.sft(table_logps)(table, batch, KEY)
    logps = log_softmax(table)[batch.tokens]
    assert float(weight) == batch.response_mask.sum()
    np.testing.assert_allclose(loss, -logps[batch.response_mask].sum(), rtol=1e-6)


def test_sft_gives_every_row_the_key_of_its_index():
    seen = []

    def spy(params, batch, keys):
        seen.append(jax.random.key_data(keys))
        return table_logps(params, batch, keys)

    rng = np.random.default_rng(0)
    batch = token_batch(rng)
    shuffled = jax.tree.map(lambda x: x[np.array([2, 0, 3, 1])], batch)
    for rows in (batch, shuffled):
        objectives.sft(spy)(jnp.zeros(7), rows, KEY)
    np.testing.assert_array_equal(seen[0][np.array([2, 0, 3, 1])], seen[1])
    assert len(np.unique(seen[0], axis=0)) == 4


def test_reward_by_hand():
    """Scores 2, 0, -1; text 0 beats 1 by all, 2 beats 1 by 3/4 (1 beats 2 by 1/4)."""
    preferences = np.zeros((1, 3, 3), np.float32)
    preferences[0, 0, 1], preferences[0, 2, 1], preferences[0, 1, 2] = 1, 0.75, 0.25
    texts = token_batch(np.random.default_rng(0), rows=3)
    texts = jax.tree.map(lambda x: x[None], texts)
    batch = ComparisonBatch(texts=texts, preferences=preferences, margins=0 * preferences)
    scores = jnp.array([2.0, 0.0, -1.0])
    loss, (weight, metrics) = objectives.reward(lambda params, rows, keys: scores, BRADLEY_TERRY)(
        None, batch, KEY
    )
    expected = np.log1p(np.exp(-2)) + 0.75 * np.log1p(np.exp(1)) + 0.25 * np.log1p(np.exp(-1))
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    assert float(weight) == 2
    assert float(metrics["rewards/accuracy"]) == 1.25
    np.testing.assert_allclose(metrics["rewards/margin"], 2 - 0.75 + 0.25, rtol=1e-6)
    centred, _ = objectives.reward(lambda *_: scores, BRADLEY_TERRY, centering=0.1)(
        None, batch, KEY
    )
    np.testing.assert_allclose(centred - loss, 0.1 * (4 + 0.75 + 0.25), rtol=1e-5)


def test_reward_margins_shift_the_difference():
    preferences = np.array([[[0, 1], [0, 0]]], np.float32)
    texts = jax.tree.map(lambda x: x[None], token_batch(np.random.default_rng(0), rows=2))
    batch = ComparisonBatch(texts=texts, preferences=preferences, margins=3 * preferences)
    loss, _ = objectives.reward(lambda *_: jnp.array([3.0, 0.0]), BRADLEY_TERRY)(None, batch, KEY)
    np.testing.assert_allclose(loss, np.log(2), rtol=1e-6)


def preference_batch(rng, weights):
    sides = [token_batch(rng), token_batch(rng)]
    zeros = np.zeros(4, np.float32)
    return PreferenceBatch(
        chosen=sides[0],
        rejected=sides[1],
        reference=PairLogps(chosen=zeros - 1, rejected=zeros - 2),
        weights=np.array(weights, np.float32),
    )


@pytest.mark.parametrize("robust", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_dpo_against_its_formula(smoothing, robust):
    rng = np.random.default_rng(1)
    batch, table = preference_batch(rng, [1, 1, 0, 1]), rng.normal(size=7).astype(np.float32)
    loss = (ROBUST if robust else DPO).given(beta=0.3, label_smoothing=smoothing)
    loss_fn = objectives.paired(table_logps, loss)
    loss, (weight, metrics) = loss_fn(table, batch, KEY)
    logps = [
        (log_softmax(table)[side.tokens] * side.response_mask).sum(1)
        for side in (batch.chosen, batch.rejected)
    ]
    h = 0.3 * ((logps[0] + 1) - (logps[1] + 2))
    right, wrong = np.log1p(np.exp(-h)), np.log1p(np.exp(h))
    conservative = (1 - smoothing) * right + smoothing * wrong
    unbiased = ((1 - smoothing) * right - smoothing * wrong) / (1 - 2 * smoothing)
    expected = (unbiased if robust else conservative)[[0, 1, 3]].sum()
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert float(weight) == 3
    np.testing.assert_allclose(metrics["rewards/margin"], h[[0, 1, 3]].sum(), rtol=1e-5)
    assert float(metrics["rewards/accuracy"]) == (h > 0)[[0, 1, 3]].sum()


def experience(rng):
    shape = (3, 4)
    draw = lambda: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    return Experience(
        inputs=None,
        actions=np.zeros(shape, np.int32),
        mask=rng.random(shape) < 0.7,
        behaviour_logps=draw() / 10 - 1,
        values=draw(),
        advantages=draw(),
        returns=draw(),
        index=np.arange(3, dtype=np.int32),
    )


def test_ppo_against_its_formula():
    rng = np.random.default_rng(2)
    batch = experience(rng)
    logps, entropy, values = (rng.normal(size=(3, 4)).astype(np.float32) for _ in range(3))
    logps = logps / 5 - 1

    def evaluate(params, rows, keys):
        return jnp.array(logps), jnp.array(entropy), jnp.array(values)

    loss_fn = objectives.ppo(
        evaluate, clip_range=0.2, value_coef=0.5, entropy_coef=0.01, value_clip_range=0.3
    )
    loss, (weight, metrics) = loss_fn(None, batch, KEY)
    ratio, advantage = np.exp(logps - batch.behaviour_logps), batch.advantages
    policy = -np.minimum(ratio * advantage, np.clip(ratio, 0.8, 1.2) * advantage)
    clipped = batch.values + np.clip(values - batch.values, -0.3, 0.3)
    value = np.maximum((values - batch.returns) ** 2, (clipped - batch.returns) ** 2) / 2
    expected = (policy + 0.5 * value - 0.01 * entropy)[batch.mask].sum()
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert float(weight) == batch.mask.sum()
    outside = ((ratio > 1.2) & (advantage > 0)) | ((ratio < 0.8) & (advantage < 0))
    assert float(metrics["ppo/clip_fraction"]) == outside[batch.mask].sum() > 0
    log_ratio = logps - batch.behaviour_logps
    k3 = np.exp(log_ratio) - 1 - log_ratio
    np.testing.assert_allclose(metrics["ppo/approx_kl"], k3[batch.mask].sum(), rtol=1e-4)
    np.testing.assert_allclose(metrics["ppo/entropy"], entropy[batch.mask].sum(), rtol=1e-5)
