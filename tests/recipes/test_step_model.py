"""Short runs, whose steps loop over stacked layers: the runs that unrolled layers make."""

import json

import jax
import numpy as np
import pytest

from jaxalign.cli import dispatch
from jaxalign.config.dpo import DPOConfig, DPOSettings
from jaxalign.config.loop import FitConfig
from jaxalign.config.model import ModelConfig
from jaxalign.config.place import PlaceConfig
from jaxalign.data.chat import token_row
from jaxalign.data.tokenizer_training import train_bpe
from jaxalign.recipes import step_model as module
from jaxalign.recipes.fit_loop import Evaluation
from jaxalign.recipes.preferences import train_dpo
from jaxalign.recipes.run import open_run
from jaxalign.recipes.text_models import load_text_model, new_text_model, save_text_model

WORDS = ("is", "film", "the", "good")
PAIRS = [{"prompt": "the ", "chosen": "film is good", "rejected": f"good {word}"} for word in WORDS]
TEXTS = [{"prompt": "the ", "completion": f"film is {word}"} for word in WORDS]
REWARD = "def length(prompts, responses):\n    return [len(text) for text in responses]\n"
LAYERS = 2  # which are deep enough here


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A policy and rows."""
    folder = tmp_path_factory.mktemp("runs")
    tokenizer = train_bpe(["the film is good"], 270)
    config = ModelConfig(width=16, layers=LAYERS, heads=2, dropout=0.0)
    policy = new_text_model(config, tokenizer, jax.random.key(0), max_length=24)
    save_text_model(folder / "policy", policy)
    for name, rows in {"dpo": PAIRS, "reward": PAIRS, "sft": TEXTS, "grpo": TEXTS}.items():
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (folder / "reward.py").write_text(REWARD)
    return folder


@pytest.fixture(autouse=True)
def deep_enough(monkeypatch):
    monkeypatch.setattr(module, "DEEP", LAYERS)


def trained(folder, command, name, *arguments, steps=2):
    """A run on one device, and its directory."""
    start = "--init" if command in ("sft", "reward") else "--policy"
    words = [command, start, folder / "policy", "--data.path", folder / f"{command}.jsonl"]
    words += ["--steps", steps, "--place.devices", 1, "--place.layout", "device"]
    words += ["--learning_rate", 0.01, "--warmup", 0, "--schedule", "constant"]
    if command == "grpo":
        words += ["--reward", f"{folder / 'reward.py'}:length", "--max_new_tokens", 4]
        words += ["--group_size", 2, "--batch_size", 2]
    else:
        words += ["--data.evaluation_path", folder / f"{command}.jsonl", "--batch_size", 4]
    dispatch([str(word) for word in [*words, *arguments, "--output", folder / name]])
    return folder / name


def unrolled(monkeypatch):
    monkeypatch.setattr(module, "SECONDS_OF_A_LAYER", 0.0)


def close(one, other):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4), one, other)


def params_of(path):
    return load_text_model(path, "model").params


LORA = ("--lora.rank", "2", "--save_every", "1")


@pytest.mark.parametrize(
    ("command", "arguments"),
    [("dpo", LORA), ("sft", ()), ("reward", LORA), ("grpo", ("--lora.rank", "2"))],
    ids=["dpo", "sft", "reward", "grpo"],
)
def test_a_loop_trains_what_unrolled_layers_train(folder, command, arguments, monkeypatch):
    looped = trained(folder, command, f"{command}-looped", *arguments)
    unrolled(monkeypatch)
    whole = trained(folder, command, f"{command}-unrolled", *arguments)
    close(params_of(looped), params_of(whole))
    found, expected = (json.loads((path / "results.json").read_text()) for path in (looped, whole))
    assert found.keys() == expected.keys()
    if arguments == LORA:  # the states along the way are models too
        close(params_of(f"{looped}@1"), params_of(f"{whole}@1"))
        assert not all(
            np.array_equal(a, b)
            for a, b in zip(
                *(jax.tree.leaves(params_of(f"{looped}@{step}")) for step in (1, 2)), strict=True
            )
        )


def test_a_run_that_goes_on_longer_may_unroll_what_it_has_stacked(folder, monkeypatch):
    run = trained(folder, "dpo", "longer", *LORA)
    short = params_of(run)
    unrolled(monkeypatch)
    longer = params_of(trained(folder, "dpo", "longer", *LORA, steps=4))
    close(longer, params_of(trained(folder, "dpo", "at-once", *LORA, steps=4)))
    leaves = zip(jax.tree.leaves(short), jax.tree.leaves(longer), strict=True)
    assert not all(np.array_equal(a, b) for a, b in leaves)


def test_a_loop_goes_on_with_the_same_bits(folder):
    run = trained(folder, "dpo", "in-two", *LORA)
    assert run == trained(folder, "dpo", "in-two", *LORA, steps=3)
    once = params_of(trained(folder, "dpo", "in-one", *LORA, steps=3))
    jax.tree.map(np.testing.assert_array_equal, params_of(run), once)


def test_an_evaluation_of_others_reads_states_as_the_policy_is(folder, tmp_path):
    """The learning curves of `rlhf` do: a training with one of its own does not stack layers."""
    policy, seen = load_text_model(folder / "policy", "policy"), []
    place = PlaceConfig(layout="device", devices=1)
    rows = [token_row(([3, 4], False), (range(5, 7 + n), True)) for n in range(4)]
    settings = DPOSettings(fit=FitConfig(steps=1, batch_size=2))

    def metrics(state):
        seen.append(jax.tree.structure(state.all_params))
        return {"kl": 0.0}

    with open_run(tmp_path / "run", DPOConfig(place=place), place, 0, inputs={}) as run:
        evaluation = Evaluation(metrics=metrics, every=1, sign="kl")
        pairs = list(zip(rows[:2], rows[2:], strict=True))
        shared = {"settings": settings, "temperature": 1.0, "evaluation": evaluation}
        train_dpo(run, "dpo", policy, pairs, **shared)
    assert seen and set(seen) == {jax.tree.structure(policy.params)}
