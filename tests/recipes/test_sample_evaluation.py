"""Evaluation on held-out prompts along training by sampling: what it chooses, and what ends it."""

import json

import jax
import numpy as np
import pytest

from jaxalign.cli import dispatch
from jaxalign.config.model import ModelConfig
from jaxalign.data.tokenizer_training import train_bpe
from jaxalign.errors import UserError
from jaxalign.recipes.text_models import load_text_model, new_text_model, save_text_model
from jaxalign.train.metrics import read_metrics

REWARD = '''
from pathlib import Path


def ascii(responses):
    """The share of ASCII characters."""
    Path(__file__).with_name("asked").touch()
    return [sum(c.isascii() for c in r) / max(len(r), 1) for r in responses]
'''
LOOPS = {
    "ppo": ("ppo", ("iterations", "9"), ("batch_size", "32")),
    "grpo": ("grpo", ("iterations", "9"), ("prompts", "8"), ("group_size", "4")),
    "online": ("online.fit", ("steps", "9"), ("batch_size", "32")),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A tiny policy, prompts, and a reward that leaves a file where it was asked."""
    folder = tmp_path_factory.mktemp("files")
    tokenizer = train_bpe(["the film is good"], 270)
    config = ModelConfig(width=16, layers=1, heads=2, dropout=0.0)
    policy = new_text_model(config, tokenizer, jax.random.key(0), max_length=16)
    save_text_model(folder / "policy", policy)
    rows = [{"prompt": word} for word in ("the", "film", "is", "so", "good")]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "rewards.py").write_text(REWARD)
    return folder


def arguments(command, files, run):
    section, *sizes = LOOPS[command]
    rows = str(files / "prompts.jsonl")
    return [
        *(command, "--policy", str(files / "policy"), "--output", str(run), "--quiet"),
        *("--reward", f"{files / 'rewards.py'}:ascii", "--max_new_tokens", "6"),
        *("--data.path", rows, "--data.evaluation_path", rows, "--place.layout", "device"),
        *(word for name, value in sizes for word in (f"--{section}.{name}", value)),
        *("--learning_rate", "3e-2", "--warmup", "0", f"--{section}.optimizer.schedule"),
        *("constant", "--eval_every", "1"),
    ]


def steps_of(run, name):
    return {line["step"]: line[name] for line in read_metrics(run) if name in line}


def parameters(source):
    params = load_text_model(str(source), "policy").params
    return jax.tree.map(lambda leaf: np.asarray(leaf).tobytes(), params)


@pytest.mark.parametrize("command", LOOPS)
def test_the_best_by_samples_is_the_model_and_patience_ends_training(command, files, tmp_path):
    """By the KL, of which little is better: it rises from 0, where the policy is its reference."""
    run = tmp_path / command
    best = ["--best", "eval/kl/reference", "--patience", "2"]
    ending = dispatch([*arguments(command, files, run), *best])["training"][command]
    divergence = steps_of(run, "eval/kl/reference")
    first, last = min(divergence, key=divergence.__getitem__), max(divergence)
    assert [*divergence] == [*range(last + 1)] and max(steps_of(run, "loss")) == last
    assert abs(divergence[0]) < 1e-4 and last == first + 2 < 9
    assert ending.pop("best_value") == divergence[first]
    assert ending == {"best_metric": best[1], "best_step": first, "stopped_at": last}
    model, chosen, final = (
        parameters(source) for source in (run, f"{run}@{first}", f"{run}@{last}")
    )
    assert model == chosen != final
    lines = read_metrics(run)
    dispatch([*arguments(command, files, run), *best])  # which does not train on
    assert read_metrics(run) == lines


@pytest.mark.parametrize("command", LOOPS)
def test_a_best_that_is_no_metric_is_refused_before_anything_is_sampled(command, files, tmp_path):
    (files / "asked").unlink(missing_ok=True)
    names = "eval/scores/ascii, eval/scores/ascii/std, eval/scores/unjudged, eval/scores/mean, "
    names += "eval/kl/reference, eval/response/length, eval/response/ended"
    with pytest.raises(UserError, match=f"^best eval/kl is no metric .* has {names}"):
        dispatch([*arguments(command, files, tmp_path / "run"), "--best", "eval/kl"])
    assert not (files / "asked").exists()
