"""Short flags: few names that mean the same in all commands, and the field that each stands for.

The field is found by the type of the block that holds it, so a command has the short flags of the
blocks it is made of. Where it has several such blocks, the one that its chosen loss or method reads
is meant; where that is not one either, the whole name has to be given.
"""

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from jaxalign.config.control import ControlConfig
from jaxalign.config.data import DataConfig
from jaxalign.config.evaluate import EvaluateConfig
from jaxalign.config.explain import ExplainConfig
from jaxalign.config.field_types import hints_of
from jaxalign.config.generate import GenerateConfig
from jaxalign.config.grpo import GRPOSettings
from jaxalign.config.images import ImagesConfig
from jaxalign.config.iterations import IterationSettings
from jaxalign.config.loop import FitConfig, LoopFields, OptimizerConfig
from jaxalign.config.ppo import PPOSettings
from jaxalign.config.ratings import RatingsConfig
from jaxalign.config.rlhf import RLHFConfig
from jaxalign.config.seeds import SeedsFields, UpdateSettings
from jaxalign.config.training import TrainingFields

SHORT_NAMES = (
    *("epochs", "steps", "learning_rate", "batch_size", "warmup", "eval_every", "save_every"),
    *("max_length", "seed"),
)  # in the order of the help; `output` is an option of the command line
SHORT_TEXTS = {
    "warmup": "Linear warm-up: a whole number of steps (1: one step), or below 1 a share of them"
}
SEEDED = (EvaluateConfig, ExplainConfig, GenerateConfig, RatingsConfig)
# block: its fields by their short names
SHORT_FLAGS: Mapping[type, Mapping[str, str]] = {
    LoopFields: {"eval_every": "eval_every", "save_every": "save_every"},
    FitConfig: {"epochs": "epochs", "steps": "steps", "batch_size": "batch_size"},
    IterationSettings: {"epochs": "prompt_epochs", "steps": "iterations"},
    PPOSettings: {"batch_size": "batch_size"},
    GRPOSettings: {"batch_size": "prompts"},
    OptimizerConfig: {"learning_rate": "learning_rate", "warmup": "warmup_steps"},
    DataConfig: {"max_length": "max_length"},
    TrainingFields: {"seed": "seed"},
    SeedsFields: {"save_every": "save_every"},
    UpdateSettings: {"learning_rate": "learning_rate"},
    ControlConfig: {"steps": "total_steps", "seed": "seeds"},
    ImagesConfig: {"steps": "updates", "batch_size": "batch_size", "seed": "seeds"},
    RLHFConfig: {"seed": "seed", "max_length": "max_length"},
    **{block: {"seed": "seed"} for block in SEEDED},
}

# configuration: short names that it does not have, since it describes loops that it does not run
LEFT_OUT: Mapping[type, tuple[str, ...]] = {
    ExplainConfig: ("epochs", "steps", "batch_size", "warmup", "eval_every", "save_every"),
}


def short_flags(cls: type) -> dict[str, list[str]]:
    """Short names of a command's configuration, each with the whole names that it may stand for.

    >>> short_flags(GenerateConfig), short_flags(ControlConfig)["seed"]
    ({'seed': ['seed']}, ['seeds'])
    """
    found: dict[str, list[str]] = {}
    for short, whole in _fields(cls, ""):
        found.setdefault(short, []).append(whole)
    names = [name for name in SHORT_NAMES if name not in LEFT_OUT.get(cls, ())]
    return {name: found[name] for name in names if name in found}


def _fields(cls: type, prefix: str) -> Iterator[tuple[str, str]]:
    """Pairs of a short and a whole name in a block and those that it contains."""
    for block, fields in SHORT_FLAGS.items():
        if issubclass(cls, block):
            for short, name in fields.items():
                yield short, prefix + name
    for name, hint in hints_of(cls).items():
        if dataclasses.is_dataclass(hint):
            yield from _fields(typing.cast(type, hint), f"{prefix}{name}.")


@typing.runtime_checkable
class Sections(typing.Protocol):
    """Configuration with a section for every loss or method, one of which is chosen."""

    @property
    def unread_sections(self) -> tuple[str, ...]:
        """Names of the sections that belong to others."""
        ...


def read_fields(names: list[str], settings: Any) -> list[str]:
    """Those of several fields that are not of a loss or method that is not chosen.

    >>> names = ["dpo.beta", "kto.beta"]
    >>> read_fields(names, ExplainConfig(method="kto")), read_fields(names, RLHFConfig())
    (['kto.beta'], ['dpo.beta', 'kto.beta'])
    """
    unread = settings.unread_sections if isinstance(settings, Sections) else ()
    return [name for name in names if name.partition(".")[0] not in unread]
