"""What a run directory says of the batch that is to be explained."""

import dataclasses
import json
import types
import typing
from pathlib import Path
from typing import Any

from jaxalign.config import DPOConfig, KTOConfig, SFTConfig, TextPPOConfig
from jaxalign.config_explain import ExplainConfig
from jaxalign.config_grpo import GRPOConfig
from jaxalign.errors import UserError

KINDS = {  # by a field of theirs, beside that of the data
    "dpo": DPOConfig,
    "kto": KTOConfig,
    "ppo": TextPPOConfig,
    "grpo": GRPOConfig,
    "labelled": SFTConfig,
}


def of_run(config: ExplainConfig) -> ExplainConfig:
    """The configuration with models, data and settings of `config.run`, its policy trained."""
    file = Path(config.run) / "config.json"
    if not file.is_file():
        raise UserError(f"--run {config.run}: no config.json there; give a run directory")
    fields = json.loads(file.read_text())
    known = [cls for name, cls in KINDS.items() if {name, "data"} <= fields.keys()]
    if not known:
        raise UserError(
            f"--run {config.run} is no run that explain takes; "
            "those are of sft, dpo, kto, ppo and grpo on text"
        )
    kind = known[0]
    run: Any = restored(kind, fields)
    if run.lora.rank or run.adapter:
        raise UserError(
            f"--run {config.run} trained an adapter or went on from one; explain differentiates "
            f"whole models: give --method, --policy {config.run}, --reference and --data.path"
        )
    shared = {"policy": config.run, "data": run.data, "seed": run.seed}
    if kind is SFTConfig:
        return dataclasses.replace(config, method="sft", **shared)
    shared |= {"reference": run.policy, "temperature": run.temperature}
    (method,) = (name for name, cls in KINDS.items() if cls is kind)
    if kind in (TextPPOConfig, GRPOConfig):
        shared |= {"reward": run.reward, "rewards": run.rewards}
        shared |= {"max_new_tokens": run.max_new_tokens}
    own = {method: getattr(run, method)}
    return dataclasses.replace(config, method=method, **own, **shared)


def restored(cls: type, fields: dict[str, Any]):
    """A configuration from the fields that `config.json` holds.

    >>> from jaxalign.config import FitConfig, OptimizerConfig
    >>> restored(FitConfig, {"steps": 3, "optimizer": {"b2": 0.5}}) == FitConfig(
    ...     steps=3, optimizer=OptimizerConfig(b2=0.5)
    ... )
    True
    """
    hints = typing.get_type_hints(cls)
    known = {field.name for field in dataclasses.fields(cls)}
    unknown = sorted(fields.keys() - known)
    if unknown:
        raise UserError(
            f"{cls.__name__} has no field {unknown[0]!r}; the run is of another version"
        )
    return cls(**{name: _value(hints[name], value) for name, value in fields.items()})


def _value(hint: Any, value: Any) -> Any:
    """A JSON value as that type has it."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for option in options:
        if dataclasses.is_dataclass(option) and isinstance(value, dict):
            return restored(typing.cast(type, option), value)
        if typing.get_origin(option) is tuple and isinstance(value, list):
            return tuple(value)
    return value
