"""Fields that may change when a run goes on: its length, how often it logs and saves, its place."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxalign.config.field_types import hints_of
from jaxalign.config.iterations import IterationSettings
from jaxalign.config.loop import FitConfig, LoopFields, OptimizerConfig
from jaxalign.config.place import PlaceConfig
from jaxalign.config.rlhf import RLHFConfig
from jaxalign.config.seeds import SeedsFields

# They change nothing of the updates that are made.
ALWAYS: Mapping[type, tuple[str, ...]] = {
    LoopFields: tuple(hints_of(LoopFields)),
    FitConfig: ("micro_batches",),
    IterationSettings: ("micro_batches",),
    SeedsFields: ("save_every",),
    PlaceConfig: tuple(hints_of(PlaceConfig)),
}
# They change how many updates are made, and by that the schedule.
LENGTH: Mapping[type, tuple[str, ...]] = {
    FitConfig: ("steps", "epochs"),
    IterationSettings: ("iterations", "prompt_epochs"),
    OptimizerConfig: ("warmup_steps", "warmup_share"),
}
OF_FIXED_LENGTH = (RLHFConfig,)  # its later stages start from what the earlier ones made


def may_change(config: Any) -> set[str]:
    """Dotted names of the fields of a command's configuration that may change within a run."""
    tables = (ALWAYS,) if isinstance(config, OF_FIXED_LENGTH) else (ALWAYS, LENGTH)
    return set(_named(config, tables))


def _named(settings: Any, tables: tuple[Mapping[type, tuple[str, ...]], ...], prefix: str = ""):
    for table in tables:
        for cls, names in table.items():
            if isinstance(settings, cls):
                yield from (prefix + name for name in names)
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            yield from _named(value, tables, f"{prefix}{field.name}.")
