"""The flags of a command: `--name value` on the command line as fields of a configuration.

A flag is a field by its whole name, `--dpo.fit.optimizer.learning_rate 1e-6`, or by its last words
where one field alone ends so, `--learning_rate 1e-6`. Dashes and underscores are the same.
"""

import dataclasses
import typing
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, TypeVar

from jaxalign.config.checks import FieldError, nearest
from jaxalign.config.field_types import hints_of, options_of, type_in_words
from jaxalign.config.overrides import Config, changed
from jaxalign.errors import UserError
from jaxalign.system.files import quote

Flag = tuple[str, tuple[str, ...]]  # its name, and the words that follow it
Given = dict[str, tuple[str, ...]]  # what follows each flag on the command line
Value = TypeVar("Value")
WORDS = {"true": True, "false": False}
DIGITS = 100  # of a number on the command line


def given_flags(arguments: Sequence[str]) -> list[tuple[str, tuple[str, ...]]]:
    """Flags of a command line with the words that follow each.

    >>> given_flags(["--seed", "1", "--rewards=a", "2"])
    [('seed', ('1',)), ('rewards', ('a', '2'))]

    Raises:
      UserError: a word that follows no flag.
    """
    flags: list[tuple[str, tuple[str, ...]]] = []
    for word in arguments:
        if word.startswith("--") and len(word) > 2:
            name, equals, value = word[2:].partition("=")
            flags.append((name.replace("-", "_"), (value,) if equals else ()))
        elif flags:
            name, words = flags[-1]
            flags[-1] = name, (*words, word)
        else:
            raise UserError(f"{quote(word)} follows no flag; a setting is given as --name value")
    return flags


def named_flags(
    given: Sequence[tuple[str, tuple[str, ...]]], known: Collection[str], command: str
) -> Given:
    """Words of every flag by its full name.

    Args:
      given: of `given_flags`.
      known: the names of all flags.
      command: for the error message.

    Raises:
      UserError: a flag that there is not, that stands for several, or is given twice.
    """
    words_of: Given = {}
    for name, words in given:
        whole = whole_name(name, known, command)
        if whole in words_of:
            raise UserError(f"--{whole} is given twice; give it once")
        words_of[whole] = words
    return words_of


def whole_name(name: str, known: Collection[str], command: str) -> str:
    """Full name of a flag: itself, or the only flag that ends with it."""
    if name in known:
        return name
    ends = [flag for flag in known if flag.endswith(f".{name}")] if name else []
    if len(ends) == 1:
        return ends[0]
    if ends:
        some = ", ".join(f"--{flag}" for flag in ends[:4]) + (", ..." if len(ends) > 4 else "")
        raise UserError(f"--{name} may be any of {some}; give the whole name")
    lasts = [flag.rpartition(".")[2] for flag in known]
    near = nearest(name, known) or nearest(name.rpartition(".")[2], lasts)
    text = quote(name)[1:-1]
    near = near.replace("did you mean ", "did you mean --")
    raise UserError(
        f"`jaxalign {command}` has no flag --{text}{near or '; its --help lists those it has'}"
    )


def flags_of(cls: type, prefix: str = "") -> dict[str, Any]:
    """Names and types of all fields, with dots for those of sections."""
    types = {}
    for name, hint in hints_of(cls).items():
        if dataclasses.is_dataclass(hint):
            types |= flags_of(typing.cast(type, hint), f"{prefix}{name}.")
        else:
            types[prefix + name] = hint
    return types


def with_flags(settings: Config, given: Mapping[str, tuple[str, ...]]) -> Config:
    """A configuration with the values that the command line gives.

    Raises:
      UserError: a value that is no such value, or that cannot be.
    """
    hints = flags_of(type(settings))
    values = {name: value_of(name, words, hints[name]) for name, words in given.items()}
    try:
        return changed(settings, values)
    except FieldError as error:
        raise UserError(f"--{error}") from None


def single(name: str, words: Sequence[str]) -> str:
    """The only word of a flag.

    Raises:
      UserError: there is none, or more.
    """
    if not words:
        raise UserError(f"--{name} needs a value")
    if len(words) > 1:
        raise UserError(
            f"{quote(words[1])} follows --{name} {words[0]}, which takes one value; quote a text "
            "that has spaces"
        )
    return words[0]


def value_of(name: str, words: Sequence[str], hint: Any) -> Any:
    """Value of a flag's words, by its type.

    >>> value_of("seeds", ["1", "2"], tuple[int, ...])
    (1, 2)

    Raises:
      UserError: names flag, words and what is wanted.
    """
    if not words:
        raise UserError(f"--{name} needs a value: {type_in_words(hint)}")
    for option in options_of(hint):
        kind, arguments = typing.get_origin(option), typing.get_args(option)
        try:
            if kind is tuple:
                each = arguments[:1] * len(words) if arguments[-1] is ... else arguments
                return tuple(map(_scalar, words, _matching(each, words)))
            if kind is dict:
                return _pairs(name, words, arguments)
            return _scalar(single(name, words), option)
        except _Other:
            continue
    first = words[0] if len(words) == 1 else " ".join(words)
    near = ""
    if typing.get_origin(hint) is Literal:
        near = nearest(first, typing.get_args(hint))
    raise UserError(f"--{name} is {quote(first)}; it must be {type_in_words(hint)}{near}")


class _Other(Exception):
    """Error of words that are no value of a type."""


def _matching(kinds: Sequence[Any], words: Sequence[str]) -> Sequence[Any]:
    if len(kinds) != len(words):
        raise _Other
    return kinds


def _pairs(name: str, words: Sequence[str], kinds: Sequence[Any]) -> dict[Any, Any]:
    if len(words) % 2:
        raise _Other
    keys = [_scalar(word, kinds[0]) for word in words[::2]]
    if repeated := [key for at, key in enumerate(keys) if key in keys[:at]]:
        raise UserError(f"--{name} has {quote(repeated[0])} twice; give it once")
    return dict(zip(keys, (_scalar(word, kinds[1]) for word in words[1::2]), strict=True))


def _scalar(word: str, kind: Any) -> Any:
    """Value of one word, by its type."""
    if kind is str:
        return word
    if typing.get_origin(kind) is Literal:
        if word in typing.get_args(kind):
            return word
        raise _Other
    if kind is bool and word.lower() in WORDS:
        return WORDS[word.lower()]
    if kind is type(None) and word.lower() == "none":
        return None
    if kind not in (int, float) or len(word) > DIGITS or "_" in word or not word.isascii():
        raise _Other
    try:
        return kind(word)
    except ValueError:
        raise _Other from None
