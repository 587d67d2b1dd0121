"""The configurations of all commands: frozen, keyword-only dataclasses, checked when they are made.

Batch sizes are global. Every field is read by the command that declares it; `--help` of a command
shows them all.

A command each: sft, reward, dpo, kto, ppo (text), control and images (`ppo` too), grpo, online,
distill, rlhf, evaluate, generate, export, explain, ratings.
Blocks that commands share: training (adapters, rows, devices, seed, policy, rewards), data, model,
lora, place, loop (steps and optimizer), iterations (of sampling and learning), ppo_update, seeds
(network, PPO update and cadence of control and images).
What they are made of: checks (decorator, one-line errors), ranges (numbers with their intervals),
field_types, overrides (changed values, `config.json`), flags and options (the command line), names
(of losses), defaults (what follows the model).

All classes can be imported from here: `from jaxalign.config import DPOConfig, DPOSettings`.
"""

from jaxalign.config.control import ControlConfig
from jaxalign.config.data import DataConfig
from jaxalign.config.distill import DistillConfig, DistillSettings
from jaxalign.config.dpo import DPOConfig, DPOSettings
from jaxalign.config.evaluate import EvaluateConfig
from jaxalign.config.explain import ExplainConfig
from jaxalign.config.export import ExportConfig
from jaxalign.config.generate import GenerateConfig
from jaxalign.config.grpo import GRPOConfig, GRPOSettings
from jaxalign.config.images import ImagesConfig
from jaxalign.config.kto import KTOConfig, KTOSettings
from jaxalign.config.loop import FitConfig, OptimizerConfig
from jaxalign.config.lora import LoraConfig
from jaxalign.config.model import ModelConfig, TokenizerConfig
from jaxalign.config.online import OnlineConfig, OnlineSettings
from jaxalign.config.place import PlaceConfig
from jaxalign.config.ppo import PPOSettings, TextPPOConfig
from jaxalign.config.ratings import RatingsConfig
from jaxalign.config.reward import ProcessSettings, RewardConfig, RewardSettings
from jaxalign.config.rlhf import ComparisonSettings, EvaluationSettings, RLHFConfig
from jaxalign.config.seeds import Cadence, NetworkConfig, UpdateSettings
from jaxalign.config.sft import SFTConfig

__all__ = [
    "Cadence",
    "ComparisonSettings",
    "ControlConfig",
    "DPOConfig",
    "DPOSettings",
    "DataConfig",
    "DistillConfig",
    "DistillSettings",
    "EvaluateConfig",
    "EvaluationSettings",
    "ExplainConfig",
    "ExportConfig",
    "FitConfig",
    "GRPOConfig",
    "GRPOSettings",
    "GenerateConfig",
    "ImagesConfig",
    "KTOConfig",
    "KTOSettings",
    "LoraConfig",
    "ModelConfig",
    "NetworkConfig",
    "OnlineConfig",
    "OnlineSettings",
    "OptimizerConfig",
    "PPOSettings",
    "PlaceConfig",
    "ProcessSettings",
    "RLHFConfig",
    "RatingsConfig",
    "RewardConfig",
    "RewardSettings",
    "SFTConfig",
    "TextPPOConfig",
    "TokenizerConfig",
    "UpdateSettings",
]
