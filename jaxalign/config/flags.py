"""The flags of a command: `--name value` on the command line as fields of a configuration.

A flag is a field by its whole name, `--dpo.fit.optimizer.learning_rate 1e-6`; by a short name that
all commands have, `--steps 100`; or by its last words where one field alone ends so, `--beta 0.1`.
Dashes and underscores are the same.
"""

import dataclasses
import typing
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, TypeVar

from jaxalign.config.checks import FieldError, nearest
from jaxalign.config.common import read_fields, short_flags
from jaxalign.config.field_types import hints_of, options_of, type_in_words
from jaxalign.config.overrides import Config, changed
from jaxalign.errors import UserError
from jaxalign.system.files import quote

Flag = tuple[str, tuple[str, ...]]  # its name, and the words that follow it
Given = dict[str, tuple[str, ...]]  # what follows each flag on the command line
Value = TypeVar("Value")
WORDS = {"true": True, "false": False}
ALTERNATIVES = (
    *(("steps", "epochs"), ("iterations", "prompt_epochs"), ("warmup_steps", "warmup_share")),
)
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


def settings_of(
    default: Config,
    given: Sequence[tuple[str, tuple[str, ...]]],
    *,
    known: Collection[str],
    command: str,
) -> Config:
    """A configuration with the flags of a command line.

    Args:
      default: what the flags change.
      given: of `given_flags`.
      known: whole names of all flags.
      command: for the error message.

    Raises:
      UserError: a flag that there is not, that stands for several, or is given twice; a value that
        is no such value, or that cannot be.
    """
    short = {
        name: kept
        for name, fields in short_flags(type(default)).items()
        if (kept := [field for field in fields if field in known])
    }
    found = list[tuple[str, list[str], tuple[str, ...]]]()
    for name, words in given:
        name = warmup_field(words) if name == "warmup" and name in short else name
        found.append((name, fields_of(name, known, short, command), words))
    certain = _by_name([(fields[0], words) for _, fields, words in found if len(fields) == 1])
    if len(certain) < len(found):
        chosen = with_flags(default, certain)
        certain = _by_name([(one_of(name, f, chosen), words) for name, f, words in found])
    return with_flags(default, certain)


def _by_name(flags: Sequence[tuple[str, tuple[str, ...]]]) -> Given:
    """Words of each flag by its whole name."""
    words_of: Given = {}
    for name, words in flags:
        if name in words_of:
            raise UserError(f"--{name} is given twice; give it once")
        words_of[name] = words
    return words_of


def warmup_field(words: Sequence[str]) -> str:
    """Field that `--warmup` stands for: steps where it is a whole number, or a share of them.

    >>> warmup_field(["10"]), warmup_field(["1"]), warmup_field(["0.1"])
    ('warmup_steps', 'warmup_steps', 'warmup_share')

    Raises:
      UserError: it is neither.
    """
    value = value_of("warmup", words, int | float)
    if isinstance(value, float) and not 0 <= value < 1:
        raise UserError(
            f"--warmup is {quote(words[0])}; give steps as a whole number, or a share of them "
            "below 1"
        )
    return "warmup_steps" if isinstance(value, int) else "warmup_share"


def fields_of(
    name: str, known: Collection[str], short: Mapping[str, Sequence[str]], command: str
) -> list[str]:
    """Whole names that a flag may stand for: itself, those of a short flag, or those that end so.

    >>> known, short = ["ppo.iterations", "ppo.kl_coef"], {"steps": ["ppo.iterations"]}
    >>> [fields_of(name, known, short, "ppo") for name in ("steps", "kl_coef")]
    [['ppo.iterations'], ['ppo.kl_coef']]

    Raises:
      UserError: there is none.
    """
    if name in known:
        return [name]
    ends = [field for field in known if name and field.endswith(f".{name}")]
    if meant := list(short.get(name, ends)):
        return meant
    names = [*known, *short]
    lasts = [flag.rpartition(".")[2] for flag in names]
    near = nearest(name, names) or nearest(name.rpartition(".")[2], lasts)
    text = quote(name)[1:-1]
    near = near.replace("did you mean ", "did you mean --")
    raise UserError(
        f"`jaxalign {command}` has no flag --{text}{near or '; its --help lists those it has'}"
    )


def one_of(name: str, fields: list[str], settings: Any) -> str:
    """The field that a flag stands for, of several the one that the chosen loss or method reads.

    Raises:
      UserError: it reads several.
    """
    read = fields if len(fields) == 1 else read_fields(fields, settings)
    if len(read) == 1:
        return read[0]
    some = ", ".join(f"--{field}" for field in fields[:4]) + (", ..." if len(fields) > 4 else "")
    raise UserError(f"--{name} may be any of {some}; give the whole name")


def flags_of(cls: type, prefix: str = "") -> dict[str, Any]:
    """Names and types of all fields, with dots for those of sections."""
    types = {}
    for name, hint in hints_of(cls).items():
        if dataclasses.is_dataclass(hint):
            types |= flags_of(typing.cast(type, hint), f"{prefix}{name}.")
        else:
            types[prefix + name] = hint
    return types


def replaced_by(name: str) -> str:
    """The other of two fields that say the same thing, of which one is None; empty: there is none.

    >>> replaced_by("fit.epochs"), replaced_by("fit.steps"), replaced_by("seed")
    ('fit.steps', 'fit.epochs', '')
    """
    section, dot, last = name.rpartition(".")
    for pair in ALTERNATIVES:
        if last in pair:
            return f"{section}{dot}{pair[1 - pair.index(last)]}"
    return ""


def with_flags(settings: Config, given: Mapping[str, tuple[str, ...]]) -> Config:
    """A configuration with the values that the command line gives, each also in place of what says
    the same in other words: `epochs` of `steps`.

    Raises:
      UserError: a value that is no such value, or that cannot be.
    """
    hints = flags_of(type(settings))
    values = {name: value_of(name, words, hints[name]) for name, words in given.items()}
    for name, value in list(values.items()):
        other = replaced_by(name)
        if value is not None and other in hints:
            values.setdefault(other, None)
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
