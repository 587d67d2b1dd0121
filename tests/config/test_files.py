"""Every file in `jaxalign/configs/` is what its command takes; settings are checked early."""

import dataclasses
from pathlib import Path

import pytest

from jaxalign.cli import CONFIGS, DEFAULTS, named_config, read_config
from jaxalign.config.data import DataConfig
from jaxalign.config.dpo import DPOConfig, DPOSettings
from jaxalign.config.evaluate import EvaluateConfig
from jaxalign.config.generate import GenerateConfig
from jaxalign.config.grpo import GRPOConfig, GRPOSettings
from jaxalign.config.loop import FitConfig, OptimizerConfig
from jaxalign.config.model import ModelConfig
from jaxalign.config.online import OnlineSettings
from jaxalign.config.packaged import FOLDER, packaged_names
from jaxalign.config.ppo import PPOSettings, TextPPOConfig
from jaxalign.config.reward import RewardConfig, RewardSettings
from jaxalign.config.rlhf import RLHFConfig
from jaxalign.errors import UserError

HELD_OUT = DataConfig(evaluation_path="held_out.jsonl")
FILES = [FOLDER / f"{name}.py" for name in packaged_names()]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_config_files(file):
    command, _ = CONFIGS[type(read_config(file)).__name__]
    assert f"jaxalign {command} --config {file.stem} " in " ".join(file.read_text().split())


def test_configurations_are_found_by_name_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read_config(Path("rlhf_smollm2")) == read_config(FOLDER / "rlhf_smollm2.py")
    assert read_config(Path("rlhf_smollm2.py")) == read_config(Path("rlhf_smollm2"))
    (tmp_path / "dpo_ratings.py").write_text((FOLDER / "ppo_cartpole.py").read_text())
    assert type(read_config(Path("dpo_ratings.py"))).__name__ == "ControlConfig"  # the user's own
    with pytest.raises(UserError, match=r"rlhf_smol does not exist; did you mean rlhf_smollm2\?"):
        read_config(Path("rlhf_smol"))
    with pytest.raises(UserError, match="by name there are dpo_ratings, ppo_cartpole"):
        read_config(Path("elsewhere/xyz.py"))


def test_there_are_configurations_for_every_training_command():
    commands = {CONFIGS[type(read_config(file)).__name__][0] for file in FILES}
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
        (lambda: GenerateConfig(top_p=0.0), r"top_p is 0.0; it must lie in \(0, 1\]"),
        (lambda: DPOSettings(beta=0.0), "beta is 0.0; it must be above 0"),
        (lambda: DPOSettings(label_smoothing=0.5), "label_smoothing is 0.5"),
        (lambda: GenerateConfig(top_k=-1), "top_k is -1; it must not be negative"),
        (lambda: GenerateConfig(max_new_tokens=0), "max_new_tokens is 0; it must be at least 1"),
        (lambda: GenerateConfig(samples=0), "samples is 0; it must be at least 1"),
        (lambda: FitConfig(save_every=0), "save_every is 0; it must be at least 1"),
        (lambda: FitConfig(patience=3), "patience 3 counts evaluations .* give best too"),
        (lambda: PPOSettings(patience=3, best="eval/score"), "give eval_every too"),
        (lambda: GRPOSettings(keep_checkpoints=0), "keep_checkpoints is 0; it must be at least 1"),
        (lambda: RLHFConfig(preferred=FitConfig(best="loss")), "leave preferred.best out"),
        (lambda: FitConfig(log_every=0), "log_every is 0; it must be at least 1"),
        (lambda: FitConfig(micro_batches=0), "micro_batches is 0; it must be at least 1"),
        (lambda: FitConfig(batch_size=0), "batch_size is 0; it must be at least 1"),
        (lambda: OptimizerConfig(max_grad_norm=0.0), "max_grad_norm is 0.0; it must be above 0"),
        (lambda: OptimizerConfig(b2=1.0), r"b2 is 1.0; it must lie in \[0, 1\)"),
        (lambda: PPOSettings(minibatches=0), "minibatches is 0; it must be at least 1"),
        (lambda: PPOSettings(clip_range=0.0), "clip_range is 0.0; it must be above 0"),
        (lambda: PPOSettings(value_clip_range=-1.0), "value_clip_range is -1.0"),
        (lambda: PPOSettings(dual_clip=1.1), "dual_clip is 1.1; it must be above 1"),
        (lambda: PPOSettings(gae_lambda=2.0), r"gae_lambda is 2.0; it must lie in \[0, 1\]"),
        (lambda: PPOSettings(gamma=-0.5), "gamma is -0.5"),
        (lambda: PPOSettings(kl_coef=-1.0), "kl_coef is -1.0; it must not be negative"),
        (lambda: PPOSettings(kl_target=0.0), "kl_target is 0.0; it must be above 0"),
        (lambda: PPOSettings(kl_target=1.0, kl_horizon=0), "kl_horizon is 0; it must be"),
        (lambda: PPOSettings(missing_eos_penalty=-1.0), "missing_eos_penalty is -1.0; it must"),
        (lambda: GRPOSettings(missing_eos_penalty=1e10), "missing_eos_penalty is 1.*; it"),
        (
            lambda: OnlineSettings(missing_eos_penalty=float("nan")),
            "missing_eos_penalty is nan; it",
        ),
        (lambda: PPOSettings(kl_horizon=99), "says how fast .* follows ppo.kl_target; set that"),
        (lambda: GRPOSettings(prompts=0), "prompts is 0; it must be at least 1"),
        (lambda: GRPOSettings(minibatches=0), "minibatches is 0; it must be at least 1"),
        (lambda: TextPPOConfig(max_new_tokens=0), "max_new_tokens is 0; it must be at least 1"),
        (lambda: GRPOConfig(max_new_tokens=-1), "max_new_tokens is -1; it must be at least 1"),
        (lambda: RewardConfig(model=ModelConfig(dropout=0.5)), "leave model.dropout out"),
        (
            lambda: RewardConfig(model=ModelConfig(value_trunk="separate")),
            "model.value_trunk",
        ),
        (
            lambda: RewardSettings(pooling="last", bag=False, bag_l2=1.0),
            "reward.bag False does not read reward.bag_l2",
        ),
        (lambda: EvaluateConfig(on="rankings", temperature=0.7), "measures scores, which no temp"),
        (lambda: RewardSettings(pooling="none"), "leaves nothing to score; set reward.bag True"),
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
