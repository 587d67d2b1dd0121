"""The configurations of all commands: frozen, keyword-only dataclasses, checked when they are made.

Batch sizes are global. Every field is read by the command that declares it; `--help` of a command
shows them all.

A command each: sft, reward, dpo, kto, ppo (text), control and images (`ppo` too), grpo, online,
distill, rlhf, evaluate, generate, export, explain, ratings.
Blocks that commands share: training (adapters, rows, devices, seed, policy, rewards), data, model,
lora, place, loop (steps and optimizer), iterations (of sampling and learning), ppo_update, seeds
(network, PPO update and cadence of control and images).
What they are made of: checks (decorator, one-line errors), ranges (numbers with their intervals),
field_types, overrides (changed values, `config.json`), flags (the command line), names (of losses),
defaults (what follows the model).

All classes can be imported from here: `from jaxalign.config import DPOConfig, DPOSettings`.
"""

import importlib
from typing import Any

MODULES = {
    "control": ("ControlConfig",),
    "data": ("DataConfig",),
    "distill": ("DistillConfig", "DistillSettings"),
    "dpo": ("DPOConfig", "DPOSettings"),
    "evaluate": ("EvaluateConfig",),
    "explain": ("ExplainConfig",),
    "export": ("ExportConfig",),
    "generate": ("GenerateConfig",),
    "grpo": ("GRPOConfig", "GRPOSettings"),
    "images": ("ImagesConfig",),
    "kto": ("KTOConfig", "KTOSettings"),
    "loop": ("FitConfig", "OptimizerConfig"),
    "lora": ("LoraConfig",),
    "model": ("ModelConfig", "TokenizerConfig"),
    "online": ("OnlineConfig", "OnlineSettings"),
    "place": ("PlaceConfig",),
    "ppo": ("PPOSettings", "TextPPOConfig"),
    "ratings": ("RatingsConfig",),
    "reward": ("ProcessSettings", "RewardConfig", "RewardSettings"),
    "rlhf": ("ComparisonSettings", "EvaluationSettings", "RLHFConfig"),
    "seeds": ("NetworkConfig", "UpdateSettings"),
    "sft": ("SFTConfig",),
}
MODULE_OF = {name: module for module, names in MODULES.items() for name in names}
__all__ = sorted(MODULE_OF)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """A configuration by its name: its module is imported then, so that `--help` stays quick."""
    if name not in MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{MODULE_OF[name]}"), name)
