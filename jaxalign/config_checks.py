"""What configurations are made of: the decorator, and checks that raise one clear line."""

import dataclasses
import math
from typing import Any, dataclass_transform

from jaxalign.errors import UserError


@dataclass_transform(frozen_default=True, kw_only_default=True)
def config(cls):
    """Class decorator of every configuration."""
    return dataclasses.dataclass(frozen=True, kw_only=True)(cls)


def require(condition: bool, message: str):
    """Raise a one-line `UserError` unless the condition holds."""
    if not condition:
        raise UserError(message)


def require_at_least(least: int, section: str, settings, *names: str):
    """Raise a one-line `UserError` that names the first field of `settings` below `least`.

    A field that is None is not given.
    """
    for name in names:
        value = getattr(settings, name)
        wanted = {0: "it must not be negative"}.get(least, f"it must be at least {least}")
        require(value is None or value >= least, f"{section}{name} is {value}; {wanted}")
        require(value != math.inf, f"{section}{name} is infinite; give a number")


def require_one(section: str, settings, first: str, second: str):
    """Raise a one-line `UserError` where two fields say the same thing in two ways."""
    values = getattr(settings, first), getattr(settings, second)
    require(
        None in values,
        f"{section}{first} {values[0]} and {section}{second} {values[1]} are both given; "
        "set one of them to None",
    )


def require_passes(name: str, passes: float | None):
    """Raise a one-line `UserError` unless a number of passes over data is one."""
    require(
        passes is None or 0 < passes < math.inf, f"{name} is {passes}; it must be a number above 0"
    )


def require_no_held_out(data: Any, command: str):
    """Raise a one-line `UserError` where held-out rows are given to a command that reads none."""
    require(
        not data.evaluation_path,
        f"{command} reads no held-out rows; leave data.evaluation_path out and use "
        "`jaxalign evaluate`",
    )


def require_temperature(temperature: float):
    """Raise a one-line `UserError` unless it is above 0."""
    require(temperature > 0, f"temperature is {temperature}; it must be above 0")


def require_one_reward(reward: str, rewards: dict[str, float]):
    """Raise a one-line `UserError` where two options say what judges, or weights say nothing."""
    require(
        not (reward and rewards),
        f"--reward {reward} and --rewards are both given; give one of them",
    )
    for source, weight in rewards.items():
        require(math.isfinite(weight), f"rewards weighs {source} by {weight}; give a finite number")
    require(
        not rewards or any(rewards.values()), "rewards weighs everything by 0: nothing is learned"
    )


def changed_fields(settings, default, prefix: str) -> list[str]:
    """Names of the fields, those of nested settings too, that are not as in the default."""
    names = []
    for field in dataclasses.fields(settings):
        name = f"{prefix}.{field.name}"
        ours, theirs = getattr(settings, field.name), getattr(default, field.name)
        if dataclasses.is_dataclass(ours):
            names += changed_fields(ours, theirs, name)
        elif ours != theirs:
            names.append(name)
    return names
