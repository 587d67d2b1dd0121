"""Configurations derived from others: with other values, from a `config.json`; and differences."""

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from jaxalign.config.checks import FieldError
from jaxalign.config.field_types import hints_of, options_of
from jaxalign.errors import UserError
from jaxalign.system.files import quote

Config = TypeVar("Config")


def changed(settings: Config, values: Mapping[str, Any]) -> Config:
    """A configuration with other values of some fields, named by dotted paths.

    Raises:
      FieldError: names the path of what cannot be.
    """
    own: dict[str, Any] = {}
    nested: dict[str, dict[str, Any]] = {}
    for path, value in values.items():
        name, _, rest = path.partition(".")
        if rest:
            nested.setdefault(name, {})[rest] = value
        else:
            own[name] = value
    for name, inner in nested.items():
        try:
            own[name] = changed(getattr(settings, name), inner)
        except FieldError as error:
            raise error.within(name) from None
    return dataclasses.replace(settings, **own)  # pyright: ignore[reportArgumentType]


def restored(cls: type[Config], fields: Any) -> Config:
    """A configuration from what `config.json` holds of it.

    Raises:
      FieldError: a field that there is not, or a value that cannot be.
    """
    if not isinstance(fields, dict):
        raise UserError(f"{quote(fields)} stands where the fields of {cls.__name__} should")
    hints = hints_of(cls)
    for name in fields:
        if name not in hints:
            text = name if name.isprintable() and len(name) < 80 else quote(name)
            raise FieldError(text, f"is no field of {cls.__name__}; the run is of another version")
    for name in hints:
        if name not in fields:
            raise FieldError(name, "is missing; the run is of another version")
    values = {}
    for name, value in fields.items():
        hint = hints[name]
        if dataclasses.is_dataclass(hint):
            try:
                values[name] = restored(typing.cast(type, hint), value)
            except FieldError as error:
                raise error.within(name) from None
        else:
            pair = any(typing.get_origin(option) is tuple for option in options_of(hint))
            values[name] = tuple(value) if pair and isinstance(value, list) else value
    return cls(**values)


def changed_fields(settings: Any, default: Any, prefix: str) -> list[str]:
    """Names of the fields, those of nested settings too, that differ from the default.

    The default may be a class: what its fields are where nothing is given.
    """
    names = []
    for field in dataclasses.fields(settings):
        name = f"{prefix}.{field.name}" if prefix else field.name
        ours = getattr(settings, field.name)
        if isinstance(default, type) and field.default_factory is not dataclasses.MISSING:
            theirs = field.default_factory()
        else:
            theirs = getattr(default, field.name)
        if dataclasses.is_dataclass(ours):
            names += changed_fields(ours, theirs, name)
        elif ours != theirs:
            names.append(name)
    return names
