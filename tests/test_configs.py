"""Every file in `configs/` is what its command takes; settings are checked early."""

import dataclasses
from pathlib import Path

import pytest

from jaxalign.cli import DEFAULTS, STAGES, named_config, read_config
from jaxalign.config import (
    DPOConfig,
    DPOSettings,
    EvaluateConfig,
    ModelConfig,
    RewardSettings,
    SamplingConfig,
    TextPPOConfig,
)
from jaxalign.config_rlhf import RLHFConfig
from jaxalign.errors import UserError

FILES = sorted((Path(__file__).parents[1] / "configs").glob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_config_files(file):
    command, _, _ = STAGES[type(read_config(file)).__name__]
    assert f"jaxalign {command} --config configs/{file.name}" in file.read_text()


def test_there_are_configurations_for_every_training_command():
    commands = {STAGES[type(read_config(file)).__name__][0] for file in FILES}
    assert commands == {"rlhf", "sft", "reward", "ppo", "dpo", "grpo"}


@pytest.mark.parametrize("name", DEFAULTS.values())
def test_defaults_are_valid_and_frozen(name):
    config = named_config(name)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ModelConfig(width=10, heads=4), "width 10 is not a multiple of model.heads 4"),
        (lambda: ModelConfig(heads=4, kv_heads=3), "not a multiple of model.kv_heads 3"),
        (lambda: ModelConfig(dropout=1.0), r"dropout is 1.0; it must lie in \[0, 1\)"),
        (lambda: SamplingConfig(top_p=0.0), r"top_p is 0.0; it must lie in \(0, 1\]"),
        (lambda: DPOSettings(beta=0.0), "beta is 0.0; it must be above 0"),
        (lambda: DPOSettings(label_smoothing=0.5), "label_smoothing is 0.5"),
        (lambda: RewardSettings(bag=False), "leaves nothing to score"),
        (lambda: DPOConfig(temperature=0.0), "temperature is 0.0; it must be above 0"),
        (lambda: TextPPOConfig(temperature=-1.0), "temperature is -1.0; it must be above 0"),
        (lambda: EvaluateConfig(temperature=0.0), "temperature is 0.0; it must be above 0"),
        (lambda: RLHFConfig(temperature=0.0), "temperature is 0.0; it must be above 0"),
        (lambda: RLHFConfig(max_length=6), "leave no room in max_length 6"),
    ],
)
def test_what_cannot_work_is_refused_at_once(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_evaluation_reads_one_path():
    data = dataclasses.replace(EvaluateConfig().data, evaluation_path="x.jsonl")
    with pytest.raises(UserError, match=r"evaluate reads --data\.path"):
        EvaluateConfig(data=data)
