"""All fields of a command, or those of a section: what `--help all` prints."""

import dataclasses
from collections.abc import Collection, Sequence
from typing import Annotated, Any

from jaxalign.config.field_texts import sentence_of
from jaxalign.config.field_types import hints_of
from jaxalign.config.flags import flags_of

Config = Any  # a frozen dataclass of `jaxalign.config`


def print_fields(command: str, settings: Config, shown: Sequence[str]) -> None:
    """Print fields with their types, texts and values.

    Args:
      command: for the first line.
      settings: of the command.
      shown: whole names of the fields; the others are left out.
    """
    import tyro

    hidden = {*flags_of(type(settings))} - {*shown}
    shown_settings = without_fields(settings, hidden)
    tyro.cli(
        type(shown_settings),
        default=shown_settings,
        args=["--help"],
        prog=f"jaxalign {command}",
        description=f"{sentence_of(type(settings))}\n\n{short_forms(shown)}",
        config=(tyro.conf.FlagConversionOff,),
        use_underscores=True,
    )


def short_forms(names: Sequence[str]) -> str:
    """Sentence for the help on flags that may be given by their last word; empty: there are none.

    >>> short_forms(["seed", "dpo.loss", "dpo.fit.steps"])
    'The last word of a flag does where no other ends so: --loss for --dpo.loss.'
    """
    lasts = [name.rpartition(".")[2] for name in names]
    short = [
        n for n, last in zip(names, lasts, strict=True) if n != last and lasts.count(last) == 1
    ]
    known = [name for name in short if name.endswith((".loss", ".learning_rate"))] or short[:1]
    examples = ", ".join(f"--{name.rpartition('.')[2]} for --{name}" for name in known)
    return f"The last word of a flag does where no other ends so: {examples}." if known else ""


def without_fields(config: Config, refused: Collection[str], prefix: str = "") -> Config:
    """Equal configuration of a subclass whose help leaves fields out.

    Args:
      config: a configuration or a block of one.
      refused: dotted names of the fields to leave out.
      prefix: dotted name of the block, with a dot behind it.
    """
    import tyro

    cls = type(config)
    fields, values = [], {}
    help_texts = {field.name: field.metadata.get("help") for field in dataclasses.fields(cls)}
    for name, hint in hints_of(cls).items():
        value = getattr(config, name)
        if prefix + name in refused:
            hint = Annotated[hint, tyro.conf.Suppress]
        elif help_texts[name]:
            hint = Annotated[hint, tyro.conf.arg(help=help_texts[name])]
        elif dataclasses.is_dataclass(value):
            value = without_fields(value, refused, f"{prefix}{name}.")
            hint = type(value)
        values[name] = value
        fields.append((name, hint))
    subclass = dataclasses.make_dataclass(
        cls.__name__,
        fields,
        bases=(cls,),
        frozen=True,
        kw_only=True,
        namespace={"__doc__": cls.__doc__},
    )
    instance = object.__new__(subclass)  # its checks are for what a user gives
    for name, value in values.items():
        object.__setattr__(instance, name, value)
    return instance
