"""Stages that train adapters: the reference, the base, resumption, devices, what is written."""

import dataclasses
import functools
import gc
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxalign.config.dpo import DPOConfig, DPOSettings
from jaxalign.config.loop import FitConfig, OptimizerConfig
from jaxalign.config.lora import LoraConfig
from jaxalign.config.place import PlaceConfig
from jaxalign.config.ppo import PPOSettings, TextPPOConfig
from jaxalign.config.reward import RewardConfig, RewardSettings
from jaxalign.config.sft import SFTConfig
from jaxalign.data.batching import token_batch
from jaxalign.errors import UserError
from jaxalign.models.functions import response_logps_of
from jaxalign.models.lora import ADAPTERS
from jaxalign.recipes.adapters import save_trained, with_adapters
from jaxalign.recipes.fit_loop import Evaluation
from jaxalign.recipes.ppo import train_ppo
from jaxalign.recipes.preferences import train_dpo
from jaxalign.recipes.prompts import Prompts
from jaxalign.recipes.run import open_run
from jaxalign.recipes.sampler import TextTask
from jaxalign.recipes.text_models import load_text_model, with_heads
from jaxalign.train.metrics import read_metrics
from tests.tiny_models import PAIRS, side_rows, tiny_policy

LORA = LoraConfig(rank=2, alpha=4.0)
INT8 = dataclasses.replace(LORA, base="int8")
KEY = jax.random.key(3)
ONE = PlaceConfig(layout="device")


base_model = functools.partial(tiny_policy, 12)
rows = functools.partial(side_rows, PAIRS * 3)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A run from new adapters: its directory, and what `train` returns."""
    directory = tmp_path_factory.mktemp("first")
    return directory, train(directory, LORA)


@pytest.fixture(scope="module")
def second(tmp_path_factory, first):
    """A run that goes on from the first one's adapter, on a base in int8."""
    directory = tmp_path_factory.mktemp("second")
    return directory, train(directory, INT8, folder=str(first[0] / "adapter"))


def train(directory, lora, *, folder="", place=ONE, steps=4, micro_batches=1):
    """The policy before and after some steps of DPO, and the metrics."""
    fit = FitConfig(
        steps=steps,
        batch_size=8,
        micro_batches=micro_batches,
        log_every=1,
        optimizer=OptimizerConfig(learning_rate=3e-2, schedule="constant", warmup_steps=0),
    )
    with open_run(directory, lora, place, 0) as run:
        policy = with_adapters(base_model(), folder, lora, KEY)
        settings = DPOSettings(fit=fit)
        pairs = list(zip(rows(0), rows(1), strict=True))
        trained = train_dpo(run, "dpo", policy, pairs, settings=settings, temperature=1.0)
        save_trained(directory, trained)
    keys = ("loss", "grad_norm", "rewards/margin")
    return policy, trained, [[line[key] for key in keys] for line in read_metrics(directory)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["first", "second"])
def test_the_reference_is_the_policy_at_the_start(request, name):
    """The first loss is log 2, also from an adapter that has been trained: its reference is not the
    base. The base keeps its bits, the adapter moves, and what is written is what was trained."""
    directory, (policy, trained, lines) = request.getfixturevalue(name)
    assert lines[0][0] == pytest.approx(math.log(2), abs=1e-5) and abs(lines[0][2]) < 1e-4
    assert lines[-1][0] < lines[0][0] - 0.01
    jax.tree.map(np.testing.assert_array_equal, trained.params["trunk"], policy.params["trunk"])
    before, after = (jax.tree.leaves(model.params[ADAPTERS]) for model in (policy, trained))
    assert all(np.abs(new - old).max() > 1e-3 for old, new in zip(before, after, strict=True))
    kernel = trained.params["trunk"]["layers_0"]["attention"]["query"]["kernel"]
    assert kernel.dtype == (np.float32 if name == "first" else np.int8)
    apart = with_adapters(base_model(), str(directory / "adapter"), LoraConfig(), KEY)
    written = load_text_model(directory, "model", head="logits")
    expected, merged, on_base = (logps_of(model) for model in (trained, written, apart))
    # sums of 3 log-probabilities of about 6 nats in float32
    np.testing.assert_allclose(merged, expected, atol=2e-5)
    error = np.abs(on_base - expected).max()
    assert error < 2e-5 if name == "first" else 2e-5 < error < 0.05


@functools.partial(jax.jit, static_argnums=0)
def compiled_logps(model, params, batch):
    return response_logps_of(model)(params, batch)


def logps_of(policy):
    batch = token_batch(rows(0)[:3], pad_id=0, length=6)
    return np.asarray(compiled_logps(policy.model, policy.params, batch))


@pytest.mark.slow
def test_a_run_that_was_cut_goes_on_to_the_same_bits(tmp_path, first, second):
    folder, (_, whole, lines) = str(first[0] / "adapter"), second[1]
    train(tmp_path, INT8, folder=folder, steps=2)
    _, resumed, again = train(tmp_path, INT8, folder=folder)
    assert again == lines
    jax.tree.map(np.testing.assert_array_equal, whole.params, resumed.params)


@pytest.mark.slow
def test_devices_and_micro_batches_change_nothing(tmp_path, first):
    """Dropout neither: its noise is that of the example."""
    lora = dataclasses.replace(LORA, dropout=0.25)
    place = PlaceConfig(layout="pmap", devices=2)
    _, _, lines = train(tmp_path / "one", lora, steps=2)
    _, _, other = train(tmp_path / "many", lora, place=place, micro_batches=2, steps=2)
    np.testing.assert_allclose(other, lines, rtol=1e-3, atol=1e-5)
    assert abs(first[1][2][0][1] - lines[0][1]) > 1e-4


class Shortness:
    """A reward model that likes few tokens."""

    def apply(self, variables, tokens, mask):
        class Outputs:
            scores = -mask.sum(axis=1).astype(jnp.float32)

        return Outputs


@pytest.mark.slow
def test_ppo_trains_adapter_and_value_head_beside_one_base(tmp_path, first):
    """Policy and reference share the arrays of the base on the device."""
    policy = with_adapters(base_model(), str(first[0] / "adapter"), LORA, KEY)
    shape = policy.params["trunk"]["embedding"].shape
    gc.collect()
    already, held = sum(x.shape == shape for x in jax.live_arrays()), []

    def evaluate(state):
        params = state.all_params
        gc.collect()
        held.append(sum(x.shape == shape for x in jax.live_arrays()) - already)
        assert {"trunk", ADAPTERS, "value"} == params.keys()
        return {}

    settings = PPOSettings(
        iterations=2,
        batch_size=16,
        minibatches=2,
        optimizer=OptimizerConfig(learning_rate=1e-2, schedule="constant", warmup_steps=0),
    )
    reward = type("Reward", (), {"model": Shortness(), "params": jnp.zeros(())})
    prompts = Prompts(ids=[[1]])
    task = TextTask(prompts=prompts, reward=reward, temperature=1.0, max_new_tokens=4)
    with open_run(tmp_path, settings, ONE, 0) as run:
        trained = train_ppo(
            run,
            "ppo",
            policy,
            task,
            settings=settings,
            evaluation=Evaluation(metrics=evaluate, every=settings.total_iterations),
        )
    lines = [line for line in read_metrics(tmp_path) if "kl/reference" in line]
    assert abs(lines[0]["kl/reference"]) < 1e-4 < abs(lines[1]["kl/reference"])
    assert held == [1, 1]
    assert np.abs(trained.params["value"]["readout"]["kernel"]).max() > 0
    jax.tree.map(np.testing.assert_array_equal, trained.params["trunk"], policy.params["trunk"])


@pytest.mark.slow
def test_a_reward_model_keeps_the_adapters_and_trains_its_head():
    policy = with_adapters(base_model(), "", INT8, KEY)
    reward = with_heads(policy, ("score",), jax.random.key(0), score_pooling="last")
    assert reward.trained.keys() == {ADAPTERS, "score"} and reward.frozen.keys() == {"trunk"}
    assert reward.params["trunk"] is policy.params["trunk"]
    tokens = np.arange(6, dtype=np.int32).reshape(2, 3)
    scores = reward.model.apply({"params": reward.params}, tokens, tokens >= 0).scores
    assert scores.shape == (2,) and np.ptp(scores) > 0


@pytest.mark.slow
def test_an_adapter_that_is_not_continued_as_it_is_is_refused(first):
    wrong = {
        "has rank 2, lora.rank is 3; they must be equal": dataclasses.replace(LORA, rank=3),
        "do not choose the same layers: .* has no trunk/layers_0/attention/key": (
            dataclasses.replace(LORA, targets=(".*/query",))
        ),
    }
    for words, lora in wrong.items():
        with pytest.raises(UserError, match=words):
            with_adapters(base_model(), str(first[0] / "adapter"), lora, KEY)


BAG = RewardSettings(pooling="none", bag=True)
MUON = FitConfig(optimizer=OptimizerConfig(name="muon"))
REFUSED = [
    (lambda: LoraConfig(dropout=0.1), r"lora\.rank 0 .* does not read lora\.dropout"),
    (lambda: LoraConfig(base="int8"), r"does not read lora\.base"),
    (lambda: LoraConfig(rank=-1), r"rank is -1"),
    (lambda: LoraConfig(rank=1, alpha=0.0), r"alpha is 0"),
    (lambda: LoraConfig(rank=1, dropout=1.0), r"dropout is 1"),
    (lambda: LoraConfig(rank=1, targets=()), r"lora\.targets is empty"),
    (lambda: SFTConfig(lora=LORA), r"need a trained model below them; set init"),
    (lambda: SFTConfig(adapter="x"), r"need a trained model below them; set init"),
    (
        lambda: RewardConfig(init="x", lora=LORA, reward=BAG),
        r"reward\.pooling none reads nothing of the trunk",
    ),
    (lambda: DPOConfig(lora=LORA, dpo=DPOSettings(fit=MUON)), r"muon is for the matrices"),
    (
        lambda: TextPPOConfig(lora=dataclasses.replace(LORA, dropout=0.1)),
        r"lora\.dropout is 0\.1; samples are drawn without",
    ),
]


@pytest.mark.parametrize(("make", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_settings_that_cannot_be_are_refused(make, words):
    with pytest.raises(UserError, match=words):
        make()
