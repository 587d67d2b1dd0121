"""The command line of a run, from its resolved configuration."""

import dataclasses
import importlib
import importlib.util
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

CONFIGURATION = re.compile(r"[a-z_]+\.[A-Za-z]+")  # module and class below `jaxalign.config`


def configuration_name(config: Any) -> str:
    """Module and class of a configuration, as `versions.json` keeps it.

    >>> from jaxalign.config.dpo import DPOConfig
    >>> configuration_name(DPOConfig())
    'dpo.DPOConfig'
    """
    return f"{type(config).__module__.rpartition('.')[2]}.{type(config).__name__}"


def command_of(name: str, config: Mapping[str, Any]) -> str:
    """The command that runs a configuration, with every field that is not as by default.

    Args:
      name: of `configuration_name`.
      config: content of `config.json`.

    Returns:
      A line for a shell; empty where there is no such command.

    >>> command_of("dpo.DPOConfig", {"policy": "smollm2", "dpo": {"beta": 0.3}})
    'jaxalign dpo --policy smollm2 --dpo.beta 0.3'
    """
    module, _, cls = name.partition(".")
    known = CONFIGURATION.fullmatch(name) and all(
        importlib.util.find_spec(f"jaxalign.{part}.{module}") for part in ("config", "commands")
    )
    kind = known and getattr(importlib.import_module(f"jaxalign.config.{module}"), cls, None)
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        return ""
    return " ".join((f"jaxalign {module}", *_flags(config, kind(), "")))


def _flags(saved: Mapping[str, Any], default: Any, prefix: str) -> Iterator[str]:
    """A flag for each saved field that differs."""
    for field in dataclasses.fields(default):
        if field.name not in saved:
            continue
        value, own = saved[field.name], getattr(default, field.name)
        if dataclasses.is_dataclass(own) and isinstance(value, dict):
            yield from _flags(value, own, f"{prefix}{field.name}.")
        elif json.dumps(value) != json.dumps(own, default=dataclasses.asdict):
            words = " ".join(shlex.quote(str(word)) for word in _words(value))
            yield f"--{prefix}{field.name} {words}"


def _words(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [word for pair in value.items() for word in pair]
    return value if isinstance(value, list) else [value]
