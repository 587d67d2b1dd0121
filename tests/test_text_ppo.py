"""PPO on text: what a round of samples turns into, and that learning finds a known optimum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxalign.batches import TokenBatch
from jaxalign.config import ModelConfig, OptimizerConfig, PlaceConfig, PPOSettings
from jaxalign.data.tokenizer import train_bpe
from jaxalign.errors import UserError
from jaxalign.sampling import Samples
from jaxalign.stages.run import open_run
from jaxalign.stages.text_models import new_text_model
from jaxalign.stages.text_ppo import train_ppo
from jaxalign.text_rollouts import ScoredSamples, text_experience
from jaxalign.train.metrics import read_metrics


def scored_rows():
    """Two rows of one prompt token; responses of two and three tokens."""
    response = np.array([[0, 1, 1, 0], [0, 1, 1, 1]], bool)
    prompt = np.array([[1, 0, 0, 0], [1, 0, 0, 0]], bool)
    batch = TokenBatch(
        tokens=jnp.ones((2, 4), jnp.int32),
        prompt_mask=jnp.array(prompt),
        response_mask=jnp.array(response),
        index=jnp.arange(2, dtype=jnp.int32),
    )
    logps = jnp.where(response, -1.0, 0.0)
    return ScoredSamples(
        samples=Samples(batch=batch, logps=logps),
        scores=jnp.array([2.0, -1.0]),
        values=jnp.zeros((2, 4)),
        reference_logps=jnp.where(response, -1.5, 0.0),
    )


def test_experience_by_hand():
    """Every token costs 0.1 * 0.5 nats; the score comes with the last real token; lambda = 1."""
    scored = scored_rows()
    experience = text_experience(scored, scored.scores, kl_coef=0.1, gamma=1.0, gae_lambda=1.0)
    expected = [[0, 1.90, 1.95, 0], [0, -1.15, -1.10, -1.05]]
    np.testing.assert_allclose(experience.advantages, expected, atol=1e-6)
    np.testing.assert_allclose(experience.returns, expected, atol=1e-6)
    np.testing.assert_array_equal(experience.mask, scored.samples.batch.response_mask)
    np.testing.assert_array_equal(experience.behaviour_logps, scored.samples.logps)


class LowIds:
    """A reward model that likes half of the vocabulary: its score is the share of ids below 135."""

    def apply(self, variables, tokens, mask):
        hits = (tokens < 135) & mask

        class Outputs:
            scores = hits.sum(axis=1) / jnp.maximum(mask.sum(axis=1), 1)

        return Outputs


def test_ppo_learns_to_write_what_is_rewarded(tmp_path):
    tokenizer = train_bpe(["the film is good"], 270)
    config = ModelConfig(width=16, layers=1, heads=2, dropout=0.0)
    policy = new_text_model(config, tokenizer, 12, ("logits",), jax.random.key(0))
    likes_low_ids = type("Reward", (), {"model": LowIds(), "params": jnp.zeros(())})
    settings = PPOSettings(
        iterations=12,
        batch_size=64,
        minibatches=2,
        kl_coef=0.0,
        missing_eos_penalty=0.0,
        optimizer=OptimizerConfig(learning_rate=1e-2, schedule="constant", warmup_steps=0),
    )
    lengths = {"temperature": 1.0, "max_new_tokens": 6}
    with open_run(tmp_path, config, PlaceConfig(layout="device"), 0) as run:
        train_ppo(run, "ppo", policy, likes_low_ids, [[1]], settings, **lengths)
    scores = [line["scores/mean"] for line in read_metrics(tmp_path)]
    kls = [line["kl/reference"] for line in read_metrics(tmp_path)]
    assert 0.4 < scores[0] < 0.65 and scores[-1] > 0.9
    assert abs(kls[0]) < 1e-3 and kls[-1] > 1


def test_a_price_on_kl_keeps_the_policy_near_the_reference(tmp_path):
    tokenizer = train_bpe(["the film is good"], 270)
    config = ModelConfig(width=16, layers=1, heads=2, dropout=0.0)
    policy = new_text_model(config, tokenizer, 12, ("logits",), jax.random.key(0))
    likes_low_ids = type("Reward", (), {"model": LowIds(), "params": jnp.zeros(())})
    settings = PPOSettings(
        iterations=8,
        batch_size=64,
        minibatches=2,
        kl_coef=0.5,
        kl_target=0.5,
        kl_horizon=256,
        missing_eos_penalty=0.0,
        optimizer=OptimizerConfig(learning_rate=1e-2, schedule="constant", warmup_steps=0),
    )
    lengths = {"temperature": 1.0, "max_new_tokens": 6}
    with open_run(tmp_path, config, PlaceConfig(layout="device"), 0) as run:
        train_ppo(run, "ppo", policy, likes_low_ids, [[1]], settings, **lengths)
    last = read_metrics(tmp_path)[-1]
    assert last["kl/reference"] < 1
    assert last["kl/coef"] != 0.5  # adapted


def test_what_must_divide_is_checked():
    with pytest.raises(UserError, match="30 is not a multiple of minibatches 4"):
        PPOSettings(batch_size=30)
