"""Options of a command line that are no fields of a configuration, such as `--output`."""

import dataclasses
import typing
from collections.abc import Sequence
from typing import Any, TypeVar

from jaxalign.config.field_types import hints_of
from jaxalign.config.flags import Flag, single
from jaxalign.errors import UserError
from jaxalign.system.files import quote

OLD_SPELLINGS = {"run_dir": "output"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of every command. A truth value is a switch: a flag without a value."""

    config: str | None = None
    """Python file whose get_config() returns the configuration that the flags change, or the name
    of one that the package holds."""
    quiet: bool = False
    """Nothing is printed but warnings, errors, and results that no file holds."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions(Options):
    """Options of a command that writes a run directory."""

    output: str | None = None
    """Directory for results, checkpoints and the model; the same command again resumes there."""
    overwrite: bool = False
    """Begin anew where the directory holds a run, which is removed when the new one is through."""
    track: str | None = None
    """Services that follow the run beside TensorBoard: wandb, trackio, or both, separated by a
    comma. A run that goes on is followed on; an empty text ends it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Options of `jaxalign report`."""

    watch: bool = False
    """Serve the page on the loopback until Ctrl-C."""
    port: str | None = None
    """Port to serve it at."""
    quiet: bool = False
    """Leave out the line that names the page."""


Given = TypeVar("Given", bound=Options | ReportOptions)


def given_options(flags: Sequence[Flag], kind: type[Given]) -> tuple[Given, list[Flag]]:
    """Options among the flags of a command line, and the other flags.

    >>> given_options([("seed", ("1",)), ("run_dir", ("runs/a",))], RunOptions)
    (RunOptions(config=None, quiet=False, output='runs/a'), [('seed', ('1',))])

    Raises:
      UserError: an option is given twice, without its value, or with one that it does not take.
    """
    hints, values = hints_of(kind), dict[str, Any]()
    rest = list[Flag]()
    for given, words in flags:
        name = OLD_SPELLINGS.get(given, given)
        if name not in hints:
            rest.append((given, words))
            continue
        if name in values:
            raise UserError(f"--{name} is given twice; give it once")
        values[name] = _switch(name, words) if hints[name] is bool else single(given, words)
    return kind(**values), rest


def _switch(name: str, words: Sequence[str]) -> typing.Literal[True]:
    if words:
        raise UserError(f"{quote(words[0])} follows --{name}, which takes no value")
    return True
