"""What may be different when a run goes on, and what that does to its learning rate."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxalign.config.going_on import LENGTH, may_change
from jaxalign.config.iterations import IterationSettings
from jaxalign.config.loop import FitConfig, OptimizerConfig
from jaxalign.config.overrides import restored
from jaxalign.errors import CannotGoOn, UserError
from jaxalign.system.console import tell
from jaxalign.system.files import quote, short_path
from jaxalign.train.optimizers import make_schedule

# Options that name files: of them `inputs.json` keeps the content. The last names a cache.
PATHS = {"init", "policy", "teacher", "adapter", "reward", "data.path", "data.evaluation_path"}
PATHS |= {"reference_logps"}


def check_config(directory: Path, saved: Mapping[str, Any], config: Any, *, done: int) -> None:
    """Check that a run may go on under a configuration, and say what it changes of the schedule.

    Paths may change, whose content is compared, and so may the fields of `may_change`.

    Args:
      directory: of the run.
      saved: its configuration so far, as `config.json` holds it.
      config: that of now.
      done: steps or iterations that the run has made.

    Raises:
      CannotGoOn: names the first other field that differs.
      UserError: the run is to have fewer steps than it has made.
    """
    before, now = flat_fields(saved), flat_fields(_as_json(config))
    free = may_change(config)
    changed = [name for name in sorted(before | now) if before.get(name) != now.get(name)]
    for name in changed:
        if name not in free and not _is_path(name, before, now):
            raise CannotGoOn(
                f"{short_path(directory)} holds a run with {name} = {quote(before.get(name))}, "
                f"this one has {quote(now.get(name))}, and that does not change while a run goes "
                "on",
                field=name,
            )
    lengths = {name for names in LENGTH.values() for name in names}
    for path, settings in loops_of(config) if lengths & {_last(name) for name in changed} else ():
        _check_steps(settings, done)
        was: Any = saved
        for name in path.split("."):
            was = was[name]
        if line := schedule_change(restored(type(settings), was), settings, done):
            tell(f"{path}: {line}")


def files_of(config: Any) -> Iterator[tuple[str, str]]:
    """Options of a configuration that name files, and the files."""
    for name, value in flat_fields(dataclasses.asdict(config)).items():
        if name in PATHS and value:
            yield name, value.partition(".py:")[0]
        for table in ("rewards", "data.mixture"):
            if name.startswith(f"{table}."):
                yield table, name.removeprefix(f"{table}.").partition(".py:")[0]


def schedule_change(before: Any, now: Any, done: int) -> str:
    """Sentence on a learning rate that changes where a run goes on; empty: it does not.

    Args:
      before, now: settings of a training loop, with all defaults.
      done: steps or iterations that were made under the first of them.
    """
    rates = [_rate(settings, done * _updates(now)) for settings in (before, now)]
    if rates[0] == rates[1]:
        return ""
    kind = "iterations" if isinstance(now, IterationSettings) else "steps"
    old, new = (
        f"over {_length(settings):,} {kind} with {settings.optimizer.warmup_steps:,} steps of "
        "warm-up"
        for settings in (before, now)
    )
    return (
        f"the {now.optimizer.schedule} schedule {new} takes the place of that {old}: at {done:,} "
        f"the learning rate goes from {rates[0]:.3g} to {rates[1]:.3g}"
    )


def loops_of(settings: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Training loops whose length is settled within a configuration, with their dotted names."""
    for field in dataclasses.fields(settings):
        value, name = getattr(settings, field.name), f"{prefix}{field.name}"
        if isinstance(value, FitConfig | IterationSettings):
            if _length(value) is not None:
                yield name, value
        elif dataclasses.is_dataclass(value):
            yield from loops_of(value, f"{name}.")


def flat_fields(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one dict, names joined by dots."""
    flat = {}
    for name, value in tree.items():
        flat |= (
            flat_fields(value, f"{prefix}{name}.")
            if isinstance(value, dict)
            else {prefix + name: value}
        )
    return flat


def _as_json(config: Any) -> dict[str, Any]:
    """Fields of a configuration as a file gives them back: tuples are lists."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def _check_steps(settings: Any, done: int) -> None:
    length = _length(settings)
    if length < done:
        kind = "iterations" if isinstance(settings, IterationSettings) else "steps"
        raise UserError(
            f"the run has made {done:,} {kind} already and is to have {length:,} now; give at "
            "least as many, or another --output"
        )


def _length(settings: Any) -> Any:
    """Steps or iterations of a training loop; None: they are open."""
    return settings.steps if isinstance(settings, FitConfig) else settings.iterations


def _updates(settings: Any) -> int:
    """Optimizer steps of a step or iteration."""
    return 1 if isinstance(settings, FitConfig) else settings.update_epochs * settings.minibatches


def _rate(settings: Any, done: int) -> float:
    """Learning rate of the update after so many."""
    optimizer: OptimizerConfig = settings.optimizer
    schedule = make_schedule(
        learning_rate=optimizer.learning_rate or 0.0,
        schedule=optimizer.schedule or "constant",
        warmup_steps=optimizer.warmup_steps or 0,
        total_steps=_length(settings) * _updates(settings),
    )
    return float(np.asarray(schedule(done)))


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _is_path(name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a field names a file in both configurations, or a source of rewards or of rows."""
    both = isinstance(before.get(name), str) and isinstance(now.get(name), str)
    return name.startswith(("rewards.", "data.mixture.")) or (name in PATHS and both)
