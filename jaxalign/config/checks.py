"""Checks of configurations, each of which raises one clear line.

Every field is checked for its type, its finiteness and its range when a configuration is made,
wherever it comes from: the command line, a Python file, or the `config.json` of a run. What one
field says of another is checked by the `__post_init__` of its class, with the functions here.
"""

import dataclasses
import difflib
import functools
import math
import typing
from collections.abc import Iterable, Iterator
from typing import Any, Literal, dataclass_transform

from jaxalign.config.field_types import fits, hints_of, options_of, type_in_words
from jaxalign.config.ranges import out_of_range, ranged_types
from jaxalign.errors import UserError
from jaxalign.numerics.bounds import LARGEST
from jaxalign.system.files import quote

HIGHEST, SMALLEST = 3.4e38, 1.2e-38  # of normal float32 numbers


class FieldError(UserError):
    """Error of one field: its name, and what is wrong with its value.

    Whoever makes a configuration in another one says where: `within`.
    """

    def __init__(self, name: str, wrong: str):
        super().__init__(f"{name} {wrong}")
        self.name, self.wrong = name, wrong

    def within(self, section: str) -> "FieldError":
        """The same error with the section's name before the field's."""
        return FieldError(f"{section}.{self.name}", self.wrong)


@dataclass_transform(frozen_default=True, kw_only_default=True)
def config(cls):
    """Decorator of every configuration: a frozen dataclass whose fields are checked first, and then
    by its own `__post_init__`.
    """
    own = getattr(cls, "__post_init__", lambda self: None)

    def checked(self):
        for name, hint in hints_of(type(self)).items():
            check_value(name, getattr(self, name), hint)
        for name, hint in ranged_types(type(self)).items():
            check_range(name, getattr(self, name), hint)
        own(self)

    cls.__post_init__ = checked
    made = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
    made.__init__ = _by_known_names(made)
    return made


def _by_known_names(cls: type) -> Any:
    """Constructor that refuses an unknown field and names the nearest one."""
    init: Any = cls.__init__

    @functools.wraps(init)
    def named(self, *args: Any, **fields: Any):
        known = [field.name for field in dataclasses.fields(type(self))]
        for name in fields:
            if name not in known:
                raise UserError(
                    f"{type(self).__name__} has no field {name!r}{nearest(name, known)}"
                )
        init(self, *args, **fields)

    return named


def nearest(name: str, known: Iterable[str]) -> str:
    """Suggestion `; did you mean ...?` of the most similar known name; empty where none is similar.

    >>> nearest("polcy", ["policy", "seed"])
    '; did you mean policy?'
    """
    close = difflib.get_close_matches(name[:100], list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def check_value(name: str, value: Any, hint: Any):
    """Raise a `FieldError` unless a value is of that type and its numbers finite in float32."""
    if not fits(value, hint):
        literal = [option for option in options_of(hint) if typing.get_origin(option) is Literal]
        known = typing.get_args(literal[0]) if literal else ()
        near = nearest(value, known) if isinstance(value, str) else ""
        raise FieldError(name, f"is {quote(value)}; it must be {type_in_words(hint)}{near}")
    for path, number in _numbers_of(name, value):
        if wrong := _not_finite(number):
            raise FieldError(path, f"is {quote(number)}; {wrong}")


def check_range(name: str, value: Any, hint: Any):
    """Raise a `FieldError` unless every number of a value lies in the range of its type."""
    if outside := out_of_range(value, hint):
        raise FieldError(name, f"is {quote(outside[0])}; {outside[1]}")


def _numbers_of(name: str, value: Any) -> Iterator[tuple[str, int | float]]:
    """Numbers within a value, with their paths; nested configurations are left out."""
    if isinstance(value, tuple):
        for one in value:
            yield from _numbers_of(name, one)
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from _numbers_of(f"{name} {key}", one)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, value


def _not_finite(number: int | float) -> str:
    """Reason why jax cannot compute with a number; empty where it can."""
    if isinstance(number, int):
        return "it is too large" if abs(number) >= 2**63 else ""
    if not math.isfinite(number):
        return "it must be a finite number"
    if abs(number) > HIGHEST:
        return "it is too large for float32"
    return "for float32 it is 0" if 0 < abs(number) < SMALLEST else ""


def require(condition: bool, message: str):
    """Raise a one-line `UserError` unless the condition holds."""
    if not condition:
        raise UserError(message)


def require_one(section: str, settings: Any, first: str, second: str):
    """Raise a one-line `UserError` where two fields set the same thing."""
    values = getattr(settings, first), getattr(settings, second)
    require(
        None in values,
        f"{section}{first} {values[0]} and {section}{second} {values[1]} are both given; "
        "set one of them to None",
    )


def require_one_reward(reward: str, rewards: dict[str, float]):
    """Raise a one-line `UserError` where both options name rewards, or weights are out of range or
    0.
    """
    require(
        not (reward and rewards),
        f"--reward {reward} and --rewards are both given; give one of them",
    )
    for source, weight in rewards.items():
        require(
            abs(weight) <= LARGEST,
            f"rewards weighs {source} by {weight:g}; give a number between {-LARGEST:,.0f} and "
            f"{LARGEST:,.0f}",
        )
    require(
        not rewards or any(rewards.values()), "rewards weighs everything by 0: nothing is learned"
    )
