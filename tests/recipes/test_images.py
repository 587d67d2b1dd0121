"""The image stage on a small scale: it learns from right and wrong; its parts by hand."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxalign.config.images import ImagesConfig
from jaxalign.config.seeds import NetworkConfig
from jaxalign.envs.digits import Digits, DigitsBandit, DigitsSplit
from jaxalign.models.mlp import PolicyOutputs, acting
from jaxalign.recipes import images
from jaxalign.rollouts.control import rollout, start
from jaxalign.train.metrics import read_metrics

KEY = jax.random.key(0)
SMALL = ImagesConfig(
    seeds=(0,),
    pretraining_steps=60,
    updates=40,
    save_every=20,
    network=NetworkConfig(widths=(32,), activation="relu"),
)


@dataclasses.dataclass(frozen=True)
class Linear:
    """A model whose logits are images @ params and whose values are 0."""

    def apply(self, variables, observations):
        logits = observations @ variables["params"]
        return PolicyOutputs(logits=logits, values=jnp.zeros(logits.shape[:-1]))


@pytest.mark.slow
def test_small_training_improves(tmp_path):
    results = images.run(SMALL, tmp_path)
    before, after, labelled = results["rows"].values()
    assert after["accuracy"][0] > before["accuracy"][0] + 0.03
    assert after["worst_recall"][0] > before["worst_recall"][0] + 0.2
    assert labelled["accuracy"][0] > before["accuracy"][0] + 0.05
    assert before["kl"][0] == 0 and after["kl"][0] > 0.05
    assert json.loads((tmp_path / "results.json").read_text()) == results
    assert (tmp_path / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    lines = read_metrics(tmp_path)
    tested = [line["test/accuracy"] for line in lines if "test/accuracy" in line]
    assert tested[0] == pytest.approx(before["accuracy"][0])
    assert tested[-1] == pytest.approx(after["accuracy"][0])
    learned = [line for line in lines if "rewards/right" in line]
    assert [line["step"] for line in learned] == [10, 20, 30, 40]
    assert learned[-1]["rewards/right"] > learned[0]["rewards/right"]


@pytest.mark.slow
def test_penalty_is_the_log_ratio_to_the_reference():
    bandit = DigitsBandit(images=jnp.eye(3), labels=jnp.array([0, 1, 2]))
    policy = jnp.zeros((3, 3))
    reference = jnp.log(jnp.array([[0.5, 0.25, 0.25]] * 3))

    @jax.jit
    def play(key):
        running = start(bandit, key, jnp.arange(64))
        _, steps = rollout(bandit, acting(Linear(), policy), running, key, length=1)
        return steps, *images.penalized(steps, Linear(), reference, kl_coef=0.1)

    steps, shaped, kl = play(KEY)
    # log(1/3) - log(1/2) where the action is 0, else log(1/3) - log(1/4).
    expected = np.where(steps.actions == 0, np.log(2 / 3), np.log(4 / 3))
    np.testing.assert_allclose(kl, expected, atol=1e-6)
    right = np.asarray(steps.observations)[:, 0].argmax(axis=-1)[:, None] == steps.actions
    np.testing.assert_allclose(shaped.rewards, right - 0.1 * expected, atol=1e-6)
    assert 0 < right.sum() < 64


@pytest.mark.slow
def test_left_out_images_have_no_part_in_the_loss():
    digits = Digits(
        images=jnp.eye(3), labels=jnp.array([0, 1, 1]), weights=jnp.array([1.0, 1.0, 0.0])
    )
    params = jnp.log(jnp.array([[0.5, 0.5], [0.75, 0.25], [0.1, 0.9]]))
    loss_fn = images.classification(Linear())
    loss, (weight, _) = loss_fn(params, digits, KEY)
    # -log 0.5 - log 0.25
    np.testing.assert_allclose(loss, 3 * np.log(2), rtol=1e-6)
    assert float(weight) == 2
    assert np.all(jax.grad(lambda p: loss_fn(p, digits, KEY)[0])(params)[2] == 0)


def test_recalls_by_hand():
    labels = jnp.array([*range(10), 0])
    test = Digits(images=jnp.eye(11), labels=labels, weights=jnp.ones(11))
    # Every image is named right, but for the second 0 (named 1) and the 9 (named 3).
    params = jax.nn.one_hot(labels.at[10].set(1).at[9].set(3), 10) * 5
    problem = images.Problem(
        split=DigitsSplit(pretraining=test, feedback=test, test=test),
        reference=jnp.zeros((11, 10)),
        key=KEY,
    )
    metrics = images.make_evaluation(Linear())(params, problem)
    assert metrics["recalls"].tolist() == [0.5, 1, 1, 1, 1, 1, 1, 1, 1, 0]
    np.testing.assert_allclose(metrics["accuracy"], 9 / 11, rtol=1e-6)
    np.testing.assert_allclose(metrics["macro_recall"], 0.85, rtol=1e-6)
    assert float(metrics["worst_recall"]) == 0
    # KL of (e^5, 1, ..., 1) / (e^5 + 9) from uniform, the same for every image.
    p = np.exp([5.0, *[0.0] * 9])
    p /= p.sum()
    np.testing.assert_allclose(metrics["kl"], np.sum(p * np.log(p * 10)), rtol=1e-5)
