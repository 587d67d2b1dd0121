"""Types of configuration fields: checks of values, and names of types in words."""

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

KINDS = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "a text",
    types.NoneType: "None",
}


@functools.cache
def hints_of(cls: type) -> Mapping[str, Any]:
    """The types of the fields of a configuration, by name."""
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}  # pyright: ignore


def options_of(hint: Any) -> tuple[Any, ...]:
    """Members of a union type; any other type alone."""
    is_union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    return typing.get_args(hint) if is_union else (hint,)


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a type that a configuration uses.

    >>> fits(1, float), fits(True, int), fits((1, 2), tuple[int, ...]), fits(None, int | None)
    (True, False, True, True)
    """
    kind, arguments = typing.get_origin(hint), typing.get_args(hint)
    if kind in (types.UnionType, typing.Union):
        return any(fits(value, option) for option in arguments)
    if kind is Literal:
        return isinstance(value, str) and value in arguments
    if kind is tuple:
        if not isinstance(value, tuple):
            return False
        each = arguments[:1] * len(value) if arguments[-1] is ... else arguments
        return len(value) == len(each) and all(map(fits, value, each))
    if kind is dict:
        return isinstance(value, dict) and all(
            fits(key, arguments[0]) and fits(one, arguments[1]) for key, one in value.items()
        )
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint) if isinstance(hint, type) else True


def type_in_words(hint: Any) -> str:
    """Name of a type in words, for error messages.

    >>> [type_in_words(hint) for hint in (int | None, tuple[float, float], Literal["a", "b"])]
    ['a whole number or None', '2 numbers', 'a or b']
    """
    kind, arguments = typing.get_origin(hint), typing.get_args(hint)
    if kind in (types.UnionType, typing.Union):
        return " or ".join(map(type_in_words, arguments))
    if kind is Literal:
        *first, last = arguments
        return f"{', '.join(first)} or {last}" if first else last
    if kind is tuple:
        many = type_in_words(arguments[0]).removeprefix("a ") + "s"
        return many if arguments[-1] is ... else f"{len(arguments)} {many}"
    if kind is dict:
        return f"pairs of {' and '.join(map(type_in_words, arguments))}"
    return KINDS.get(hint) or f"a {getattr(hint, '__name__', hint)}"
