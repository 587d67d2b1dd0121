"""Commands fill in what is not given: from the model that they load, before they write anything."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from jaxalign.cli import dispatch
from jaxalign.config.data import DataConfig
from jaxalign.config.defaults import LARGE, Start
from jaxalign.config.lora import LoraConfig
from jaxalign.config.model import ModelConfig
from jaxalign.data.tokenizer_training import train_bpe
from jaxalign.errors import UserError
from jaxalign.models.transformer import Transformer
from jaxalign.recipes import finish
from jaxalign.recipes.text_models import (
    load_text_model,
    new_text_model,
    save_text_model,
    start_of,
    with_heads,
)
from jaxalign.recipes.user_data import with_max_length
from tests.tiny_models import tiny_policy

pytestmark = pytest.mark.slow


ROWS = [{"prompt": f"the {i}", "chosen": " film", "rejected": " good"} for i in range(5)]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The same small model as this program writes it, and as a published folder."""
    folder = tmp_path_factory.mktemp("models")
    save_text_model(folder / "ours" / "model", tiny_policy(24))
    dispatch(["export", "--model", str(folder / "ours"), "--output", str(folder / "published")])
    return folder


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return str(path)


def test_where_a_model_comes_from_and_how_large_it_is(models):
    ours, published = (load_text_model(models / n, "init") for n in ("ours", "published"))
    count = sum(np.size(leaf) for leaf in jax.tree.leaves(ours.params))
    plain, adapters = LoraConfig(), LoraConfig(rank=2)
    assert start_of(ours, plain) == Start(parameters=count)
    assert start_of(published, adapters) == Start(published=True, parameters=count, adapters=True)
    assert start_of(None, plain).small

    headed = with_heads(published, ("logits", "value"), jax.random.key(0))
    assert start_of(headed, plain).published
    config = dataclasses.replace(ModelConfig(), width=64, layers=1)
    tokenizer = train_bpe(["a"], 260)
    new = new_text_model(config, tokenizer, jax.random.key(0), max_length=8)
    assert start_of(new, plain).small
    big = dataclasses.replace(new, params={"w": np.broadcast_to(np.float32(0), LARGE)})
    assert not start_of(big, plain).small and start_of(big, plain).name == "a large model"


def test_rows_are_as_long_as_suits_the_model(models):
    """128 tokens for a small model or a new one, 1024 for a published one, never more than it
    reads, and what is given before all else.
    """
    ours, published = (load_text_model(models / n, "init") for n in ("ours", "published"))
    longer = dataclasses.replace(ours.model.config, max_length=4096)
    model = Transformer(longer)
    ours, published = (dataclasses.replace(m, model=model) for m in (ours, published))
    shorter = dataclasses.replace(
        published, model=Transformer(dataclasses.replace(longer, max_length=100))
    )
    for model, given, length in (
        (None, None, 128),
        (ours, None, 128),
        (published, None, 1024),
        (shorter, None, 100),
        (None, 50, 50),
        (ours, 2048, 2048),
        (published, 8192, 4096),
    ):
        assert with_max_length(DataConfig(max_length=given), model).longest == length


def test_a_published_model_is_trained_gently_and_the_run_says_so(
    models, rows, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(finish, "write_report", lambda directory: directory)  # plots take seconds
    command = ["dpo", "--policy", str(models / "published"), "--data.path", rows]
    command += ["--output", str(tmp_path / "run"), "--dpo.fit.epochs", "2"]
    command += ["--dpo.fit.batch_size", "2", "--place.layout", "device"]
    dispatch(command)
    told = capsys.readouterr().out.splitlines()
    assert told.count("device: 1 x cpu (device)") == 1
    (line,) = [line for line in told if line.startswith("defaults of ")]
    assert line == (
        "defaults of a published model: learning_rate 1e-06, b2 0.999, linear schedule, "
        "warm-up 10%, 2 epochs (5 steps)"
    )
    kept = json.loads((tmp_path / "run" / "config.json").read_text())["dpo"]["fit"]
    optimizer = kept["optimizer"]
    assert (kept["steps"], kept["epochs"], kept["batch_size"]) == (5, None, 2)  # 2 x 5 rows of 2
    assert (optimizer["warmup_steps"], optimizer["warmup_share"]) == (1, None)
    assert (optimizer["learning_rate"], optimizer["b2"]) == (1e-6, 0.999)
    assert optimizer["schedule"] == "linear"
    model = (tmp_path / "run" / "model" / "model.safetensors").read_bytes()
    dispatch(command)  # it finds itself and what it has done
    assert (tmp_path / "run" / "model" / "model.safetensors").read_bytes() == model
    with pytest.raises(UserError, match=r"run with dpo.fit.batch_size = 2"):
        dispatch(["4" if word == "2" and at == "--dpo.fit.batch_size" else word
                  for at, word in zip(["", *command], command, strict=False)])  # fmt: skip


COMMANDS = {
    "sft": ("init", "fit"),
    "dpo": ("policy", "dpo.fit"),
    "kto": ("policy", "kto.fit"),
    "reward": ("init", "reward.fit"),
    "process": ("init", "process.fit"),
    "ppo": ("policy", "ppo"),
    "grpo": ("policy", "grpo"),
    "online": ("policy", "online.fit"),
    "distill": ("policy", "distill.fit"),
}


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("model", ["ours", "published"])
def test_every_command_refuses_a_schedule_shorter_than_its_warm_up(name, model, models, tmp_path):
    """Before it reads rows (there are none) or makes its directory."""
    option, flag = COMMANDS[name]
    command = ["reward", "--loss", "process"] if name == "process" else [name]
    command += [f"--{option}", str(models / model), "--output", str(tmp_path / "run")]
    command += ["--teacher", str(models / "ours")] if name == "distill" else []
    sampled = name in ("ppo", "grpo")
    command += [f"--{flag}.{'iterations' if sampled else 'steps'}", "1"]
    command += [f"--{flag}.update_epochs", "1", f"--{flag}.minibatches", "2"] if sampled else []
    command += [f"--{flag}.optimizer.warmup_steps", "3"]
    command += ["--data.path", str(tmp_path / "none.jsonl")]
    with pytest.raises(UserError, match=rf"^--{flag}\.optimizer\.warmup_steps 3 is longer than"):
        dispatch(command)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("flag", ["dpo.fit.steps", "dpo.fit.optimizer.warmup_steps"])
def test_two_words_for_one_thing_are_refused(flag, models, rows):
    other = {"dpo.fit.steps": "epochs", "dpo.fit.optimizer.warmup_steps": "warmup_share"}[flag]
    command = ["dpo", "--policy", str(models / "ours"), "--data.path", rows, f"--{flag}", "1"]
    with pytest.raises(UserError, match=rf"{other} 1.0 are both given; set one of them to None"):
        dispatch([*command, f"--{flag.rpartition('.')[0]}.{other}", "1"])
