"""The configurations of all commands: frozen, keyword-only dataclasses, checked when they are made.

Batch sizes are global. Every field is read by the command that declares it; `--help` of a command
shows them all.
"""

from jaxalign.config.control import ControlConfig
from jaxalign.config.data import DataConfig, PlaceConfig
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
from jaxalign.config.model import LoraConfig, ModelConfig, TokenizerConfig
from jaxalign.config.online import OnlineConfig, OnlineSettings
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
